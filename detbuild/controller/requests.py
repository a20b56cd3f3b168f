"""What other processes do with an experiment: follow it, wait for it, stop it, continue it.

`resume` restarts the controller of an experiment that lost it; `continue` reopens one that has ended or is
paused, optionally with a changed config.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from detbuild.controller.lease import holder, lease
from detbuild.controller.loop import start_detached
from detbuild.controller.state import LENGTHENED, JournaledState
from detbuild.errors import ConfigError, EngineError, LeaseError
from detbuild.events import Emit, Warned, ignore
from detbuild.store.experiment_dir import config_of, config_with
from detbuild.store.follow import ExperimentTail
from detbuild.store.journal import JournalFile, Verb
from detbuild.store.state import ExperimentState, State, StateFold, StopVerb, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.home import Home

_POLL = 0.1  # seconds between polls of the files
_PAUSE = 3.0  # seconds between two starts of a controller that keeps dying
_STARTS = 3  # starts before that is reported as an error
# Existing trials were made with these, or have their checkpoints there.
_FIXED: Final = (
    ("hyperparameters",),
    ("reproducibility",),
    ("checkpoint_storage",),
    ("environment", "image"),
    ("searcher",),
)
_OTHERWISE: Final = "create another experiment; searcher.source_checkpoint_uuid starts it from these weights"


def follow(home: Home, experiment_id: int, emit: Emit, *, since: int = 0) -> ExperimentState:
    """Emit past and new events until the experiment has ended.

    The follower may be interrupted at any time; the experiment keeps running.

    Args:
        home: The detbuild home.
        experiment_id: The experiment.
        emit: Receives the events.
        since: Number of a request; earlier events are skipped.
    """
    tail = ExperimentTail(home.experiment(experiment_id), since=since)
    for _ in _polls(tail.folder, emit):
        tail.emit(emit)
        if tail.over:
            break
    return load(tail.folder)


def wait(home: Home, experiment_id: int, emit: Emit) -> ExperimentState:
    """Wait until the experiment has ended, also while it is paused, and return its state."""
    folder = home.experiment(experiment_id)
    ledger, journal = StateFold(folder.header()), JournalFile(folder.journal_file)
    for _ in _polls(folder, emit):
        for entry in journal.new():
            ledger.enter(entry)
        if ledger.over:
            break
    return load(folder)


def request(home: Home, experiment_id: int, verb: Verb, trial_id: int | None = None) -> ExperimentState:
    """Make a request, and start a controller if none runs.

    Args:
        home: The detbuild home.
        experiment_id: The experiment.
        verb: The request; kill wins over cancel, and cancel over pause.
        trial_id: End only this trial, by kill or cancel; the others keep running.

    Returns:
        The state before the request. If it needs no change, no request is made.

    Raises:
        ConfigError: The experiment or trial does not exist, or its state does not allow the request.
    """
    folder = home.experiment(experiment_id)
    journaled = JournaledState(folder=folder)
    state = journaled.state.snapshot()
    if trial_id is not None and trial_id not in state.trials:
        raise ConfigError(
            f"experiment {experiment_id} has no trial {trial_id}",
            hint=f"list its trials with `detbuild describe {experiment_id}`",
        )
    if state.over and verb in {Verb.PAUSE, Verb.ACTIVATE}:
        raise ConfigError(
            f"experiment {experiment_id} has ended: {state.state.label}",
            hint=f"run `detbuild continue {experiment_id}` to continue what was not completed",
        )
    if not _idle(journaled, verb, trial_id):
        if state.header.local and verb == Verb.ACTIVATE:
            raise _needs_foreground(state)
        folder.request(verb, trial_id=trial_id)
        resume_one(folder)
    return state


def _needs_foreground(state: ExperimentState) -> ConfigError:
    """Return the error for a local experiment, which cannot run in the background."""
    id_, verb = state.header.id, "activate" if state.stop == StopVerb.PAUSE else "continue"
    return ConfigError(
        f"experiment {id_} is local; it must be continued in the foreground",
        hint=f"run `detbuild {verb} {id_}` once it is paused or has ended",
    )


def _idle(journaled: JournaledState, verb: Verb, trial_id: int | None) -> bool:
    """Whether the request would change nothing."""
    state = journaled.state
    if state.over or (trial_id is not None and state.trials[trial_id].ended):
        return True
    waiting = any(other.trial_id is None for other in journaled.requests())
    return not waiting and (
        (verb == Verb.PAUSE and state.paused) or (verb == Verb.ACTIVATE and state.stop != StopVerb.PAUSE)
    )


def resume(home: Home, emit: Emit = ignore) -> tuple[int, ...]:
    """Start a controller for every experiment that needs one and has none; return their IDs.

    Damaged experiments are skipped and reported to `emit`.
    """

    def start(folder: ExperimentFolder) -> int:
        return folder.id if has_work_left(folder) and resume_one(folder) else 0

    return tuple(filter(None, home.each(start, emit, oldest_first=True)))


def resume_one(folder: ExperimentFolder) -> bool:
    """Restart the controller of an experiment unless another process holds it."""
    if holder(folder.lock_file) is not None:
        return False
    try:
        with lease(folder.lock_file) as held:
            if folder.header().local:
                from detbuild.controller.local import finish_pending

                finish_pending(folder)
            else:
                start_detached(folder, held)
    except LeaseError:  # another process was faster
        return False
    return True


def needs_controller(folder: ExperimentFolder) -> bool:
    """Whether the experiment is neither ended nor paused, or has unread requests."""
    journaled = JournaledState(folder=folder)
    return not journaled.state.idle or bool(journaled.requests())


def has_work_left(folder: ExperimentFolder) -> bool:
    """Whether it needs a controller, or has ended with uploads or deletions still pending."""
    if needs_controller(folder):
        return True
    state = JournaledState(folder=folder).state
    return state.over and state.stored.has_pending


class RequestWatcher:
    """A watchdog that restarts the controller of an experiment while a caller waits for its end.

    A controller is alive while its lease is held, however slow the host is.
    """

    def __init__(self, folder: ExperimentFolder, emit: Emit) -> None:
        self._folder, self._emit = folder, emit
        self._starts = 0
        self._start_at = 0.0
        self._rested: tuple[int, ...] = ()  # file sizes when no work was left

    def poll(self) -> None:
        """Start a controller if one is needed and none runs.

        Raises:
            EngineError: Controllers keep dying.
        """
        folder = self._folder
        if time.monotonic() < self._start_at or holder(folder.lock_file) is not None:
            return
        sizes = tuple(map(_size, (folder.journal_file, folder.requests_file)))
        if sizes == self._rested:
            return
        journaled = JournaledState(folder=folder)
        if journaled.state.idle and not journaled.requests():
            self._rested = sizes
        else:
            self._start(folder, died=not journaled.state.idle)

    def _start(self, folder: ExperimentFolder, *, died: bool) -> None:
        if self._starts == _STARTS:
            raise EngineError(
                f"the controller of experiment {folder.id} keeps dying",
                hint=f"check {folder.log_file}, then run `detbuild resume`",
            )
        if not resume_one(folder):
            return
        if died:
            self._emit(Warned(f"the controller of experiment {folder.id} has died; starting a new one"))
        self._starts += 1
        self._start_at = time.monotonic() + _PAUSE


def _size(file: Path) -> int:
    try:
        return file.stat().st_size  # allowed: only its size
    except FileNotFoundError:
        return 0


def _polls(folder: ExperimentFolder, emit: Emit) -> Iterator[None]:
    """Yield at every poll, and keep a controller running."""
    watcher = RequestWatcher(folder, emit)
    while True:
        yield
        time.sleep(_POLL)
        watcher.poll()


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
        raise _needs_foreground(journaled.state.snapshot())
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
    return folder.inbox().put(Verb.ACTIVATE)


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
    return folder.inbox().put(Verb.CONTINUE, config=config.resolved() if changed else None)


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
