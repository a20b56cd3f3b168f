"""Continues an experiment that has ended or is paused, optionally with a changed config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from detbuild.controller.attend import needs_foreground, resume_one
from detbuild.controller.book import JournaledState
from detbuild.controller.heed import LENGTHENED
from detbuild.controller.lease import lease
from detbuild.errors import ConfigError
from detbuild.store.experiment_dir import config_of, config_with
from detbuild.store.state import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.events import Emit
    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.home import Home
    from detbuild.store.state import ExperimentState

# Existing trials were made with these, or have their checkpoints there.
_FIXED: Final = (
    ("hyperparameters",),
    ("reproducibility",),
    ("checkpoint_storage",),
    ("environment", "image"),
    ("searcher",),
)
_OTHERWISE: Final = "create another experiment; searcher.source_checkpoint_uuid starts it from these weights"


def continue_(home: Home, experiment_id: int, overrides: Sequence[str] = (), file: Path | None = None) -> int:
    """Continue what was not completed; what was trained and reported is kept.

    A trial that failed, was killed, canceled or is paused runs again from its newest checkpoint, with all of
    its `max_restarts`. The search gets no event for a trial whose end it has received.

    Args:
        home: The detbuild home.
        experiment_id: The experiment.
        overrides: Changes to its config, as in `--config`. With another `searcher.max_length` all
            trials of a `single`, `random` or `grid` search train to that length, completed or not.
        file: A config or part of one with more changes; `overrides` win.

    Returns:
        The number of the request, to follow the experiment from.

    Raises:
        ConfigError: It is running, all is completed, or a change is not possible.
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
    """Continue a local experiment at rest in the foreground.

    Args:
        folder: The experiment.
        ask: Makes the request that continues it, and returns its number.
        environ: Environment of its processes.
        emit: Receives the events from then on.

    Raises:
        ConfigError: Its trial is an object of a program that has ended; or raised by `ask`.
        LeaseError: It is running.
    """
    from detbuild.controller.local import run_local

    if config_of(folder).entrypoint.kind == "given":
        raise ConfigError(
            f"experiment {folder.id} ran in a Python program that defines its trial",
            hint="run that program again, with searcher.source_checkpoint_uuid to start from its weights",
        )
    with lease(folder.lock_file) as held:
        return run_local(folder, environ, emit, lease_descriptor=held, since=ask(folder))


def request_activate(folder: ExperimentFolder) -> int:
    """Request to unpause an experiment, and return the number of the request.

    Raises:
        ConfigError: It is not paused.
    """
    journaled = JournaledState(folder=folder)
    if not journaled.state.paused:
        raise ConfigError(
            f"experiment {folder.id} is not paused but {journaled.state.snapshot().state.label}",
            hint=f"run `detbuild continue {folder.id}` to continue an ended experiment",
        )
    return folder.inbox().put("activate")


def request_continue(
    folder: ExperimentFolder, overrides: Sequence[str] = (), file: Path | None = None
) -> int:
    """Make the request of `continue_` without starting a controller."""
    journaled = JournaledState(folder=folder)
    state = journaled.state.snapshot()
    if not journaled.state.idle:
        raise ConfigError(
            f"experiment {folder.id} is {state.state.label}; it must be paused or have ended to be continued",
            hint=f"run `detbuild pause {folder.id}` or `detbuild cancel {folder.id}` first, and wait",
        )
    before = config_of(folder)
    changed = bool(overrides or file)
    config = _continued(before, overrides, file) if changed else before
    longer = config.searcher.max_length != before.searcher.max_length
    done = journaled.state.finishing and all(t.state == State.COMPLETED for t in state.trials.values())
    if journaled.state.over and done and not longer:
        raise ConfigError(
            f"all trials of experiment {folder.id} are completed: there is nothing to continue",
            hint="train longer, e.g. with --config searcher.max_length.batches=1000"
            if before.searcher.name in LENGTHENED
            else _OTHERWISE,
        )
    return folder.inbox().put("continue", config=config.resolved() if changed else None)


def _continued(before: ExperimentConfig, overrides: Sequence[str], file: Path | None) -> ExperimentConfig:
    """Return the config with the changes.

    Raises:
        ConfigError: A field was changed that cannot change.
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
                    "continued: its decisions depend on results at the old lengths",
                    hint=_OTHERWISE,
                )
    return config


def _differences(one: object, other: object, name: str) -> Iterator[str]:
    """Yield the names of unequal fields."""
    if isinstance(one, dict) and isinstance(other, dict):
        yield from (f"{name}.{key}" for key in {**one, **other} if one.get(key) != other.get(key))
    elif one != other:
        yield name


def _at(raw: Mapping[str, object], path: tuple[str, ...]) -> object:
    value: object = raw
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value
