"""Takes up again an experiment that has ended or is paused, if need be with another config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from detbuild.controller.attend import needs_foreground, resume_one
from detbuild.controller.book import JournaledState
from detbuild.controller.heed import LENGTHENED
from detbuild.controller.lease import lease
from detbuild.errors import ConfigError
from detbuild.store.states import State
from detbuild.store.submitted import config_of, config_with

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.events import Emit
    from detbuild.store.folder import ExperimentFolder
    from detbuild.store.home import Home
    from detbuild.store.state import ExperimentState

# What the trials that there are were made by, or where their checkpoints are.
_FIXED: Final = (
    ("hyperparameters",),
    ("reproducibility",),
    ("checkpoint_storage",),
    ("environment", "image"),
    ("searcher",),
)
_OTHERWISE: Final = "start another experiment; searcher.source_checkpoint_uuid takes the weights along"


def continue_(home: Home, experiment_id: int, overrides: Sequence[str] = (), file: Path | None = None) -> int:
    """Go on with what was not completed; what was trained and reported is kept.

    A trial that failed, was killed, cancelled or is paused runs again from its newest checkpoint, with all of
    its `max_restarts`. The search hears nothing of a trial whose end it knew.

    Args:
        home: Of the experiment.
        experiment_id: Of the experiment.
        overrides: Changes to its config, as `--config` takes them. With another `searcher.max_length` all
            trials of a `single`, `random` or `grid` search train to that, completed or not.
        file: Of changes too, below `overrides`: a config, or a part of one.

    Returns:
        The number of the request, from which on it may be followed.

    Raises:
        ConfigError: It is going on, there is nothing to go on with, or that cannot be changed any more.
    """
    folder = home.experiment(experiment_id)
    journaled = JournaledState(folder=folder)
    if journaled.state.header.local and journaled.state.idle:
        raise needs_foreground(journaled.state.snapshot())
    number = request_continue(folder, overrides, file)
    resume_one(folder)
    return number


def continue_local(
    folder: ExperimentFolder,
    ask: Callable[[ExperimentFolder], int],
    environ: Mapping[str, str],
    emit: Emit,
) -> ExperimentState:
    """Go on with a local experiment that is at rest: in the foreground, where its directory is.

    Args:
        folder: Of the experiment.
        ask: Puts the request by which it goes on, and gives its number.
        environ: For its processes.
        emit: Told of all that happens from then on.

    Raises:
        ConfigError: Its trial is an object of a program that has ended; or what `ask` raises.
        LeaseError: It is going on.
    """
    from detbuild.controller.local import run_local

    if config_of(folder).entrypoint.kind == "given":
        raise ConfigError(
            f"experiment {folder.id} ran in a program of yours, which alone has its trial",
            hint="run the program again, with searcher.source_checkpoint_uuid to go on from its weights",
        )
    with lease(folder.lock_file) as held:
        return run_local(folder, environ, emit, lease_descriptor=held, since=ask(folder))


def request_activate(folder: ExperimentFolder) -> int:
    """Ask an experiment at rest to go on where it was paused, and return the number of the request.

    Raises:
        ConfigError: It is not paused.
    """
    journaled = JournaledState(folder=folder)
    if not journaled.state.paused:
        raise ConfigError(
            f"experiment {folder.id} is not paused but {journaled.state.snapshot().state}",
            hint=f"run `detbuild continue {folder.id}` to continue an ended experiment",
        )
    return folder.inbox().put("activate")


def request_continue(
    folder: ExperimentFolder, overrides: Sequence[str] = (), file: Path | None = None
) -> int:
    """What `continue_` does, without anybody who takes it up."""
    journaled = JournaledState(folder=folder)
    state = journaled.state.snapshot()
    if not journaled.state.idle:
        raise ConfigError(
            f"experiment {folder.id} is {state.state}: only what has ended or is paused can be continued",
            hint=f"`detbuild pause {folder.id}` or `detbuild cancel {folder.id}` first, and wait",
        )
    before = config_of(folder)
    changed = bool(overrides or file)
    config = _continued(before, overrides, file) if changed else before
    longer = config.searcher.max_length != before.searcher.max_length
    done = journaled.state.finishing and all(t.state == State.COMPLETED for t in state.trials.values())
    if journaled.state.over and done and not longer:
        raise ConfigError(
            f"all trials of experiment {folder.id} are completed: there is nothing to continue",
            hint="train longer, for example with --config searcher.max_length.batches=1000"
            if before.searcher.name in LENGTHENED
            else _OTHERWISE,
        )
    return folder.inbox().put("continue", config=config.resolved() if changed else None)


def _continued(before: ExperimentConfig, overrides: Sequence[str], file: Path | None) -> ExperimentConfig:
    """The config with the changes.

    Raises:
        ConfigError: One of them is of what cannot change.
    """
    config = config_with(before, overrides=overrides, file=file)
    old, new = before.resolved(), config.resolved()
    for path in _FIXED:
        for name in _differences(_at(old, path), _at(new, path), ".".join(path)):
            if name != "searcher.max_length":
                raise ConfigError(
                    f"{name} cannot be changed when an experiment is continued", hint=_OTHERWISE
                )
            if before.searcher.name not in LENGTHENED:
                raise ConfigError(
                    f"{name} of the searcher {before.searcher.name} cannot be changed when an experiment is "
                    "continued: what it decided rests on results at the lengths that it had",
                    hint=_OTHERWISE,
                )
    return config


def _differences(one: object, other: object, name: str) -> Iterator[str]:
    """Yield the names of what is not equal."""
    if isinstance(one, dict) and isinstance(other, dict):
        yield from (f"{name}.{key}" for key in {**one, **other} if one.get(key) != other.get(key))
    elif one != other:
        yield name


def _at(raw: Mapping[str, object], path: tuple[str, ...]) -> object:
    value: object = raw
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value
