"""What other processes do about an experiment: follow it, wait for it, ask for its end, take it up again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from detbuild.controller.book import JournaledState
from detbuild.controller.lease import holder, lease
from detbuild.controller.start import start_detached
from detbuild.errors import ConfigError, EngineError, LeaseError
from detbuild.events import Emit, Warned, ignore
from detbuild.store.follow import ExperimentTail
from detbuild.store.journal import JournalFile
from detbuild.store.ledger import StateFold
from detbuild.store.state import ExperimentState, load
from detbuild.store.states import StopVerb

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from detbuild.store.folder import ExperimentFolder
    from detbuild.store.home import Home
    from detbuild.store.requests import Verb

_POLL = 0.1  # seconds between looks at the files
_PAUSE = 3.0  # seconds between two starts of a controller that does not stay alive
_STARTS = 3  # how often one is started before that is reported as an error


def follow(home: Home, experiment_id: int, emit: Emit, *, since: int = 0) -> ExperimentState:
    """Emit what happens and what happened so far, until the experiment is over.

    The experiment does not notice: the follower may be interrupted at any time.

    Args:
        home: Of the experiment.
        experiment_id: Of the experiment.
        emit: Told of it all.
        since: The number of a request; what was before it is passed over.
    """
    tail = ExperimentTail(home.experiment(experiment_id), since=since)
    for _ in _polls(tail.folder, emit):
        tail.emit(emit)
        if tail.over:
            break
    return load(tail.folder)


def wait(home: Home, experiment_id: int, emit: Emit) -> ExperimentState:
    """Return the state of the experiment once it is over; one that is paused is waited for."""
    folder = home.experiment(experiment_id)
    ledger, journal = StateFold(folder.header()), JournalFile(folder.journal_file)
    for _ in _polls(folder, emit):
        for entry in journal.new():
            ledger.enter(entry)
        if ledger.over:
            break
    return load(folder)


def request(home: Home, experiment_id: int, verb: Verb, trial_id: int | None = None) -> ExperimentState:
    """Ask for "kill", "cancel", "pause" or "activate"; an experiment without a controller gets one.

    Args:
        home: Of the experiment.
        experiment_id: Of the experiment.
        verb: What is wanted; kill wins over cancel, and cancel over pause.
        trial_id: End this trial alone, by "kill" or "cancel"; the others go on.

    Returns:
        The state in which the experiment was; where that leaves nothing to do, nothing was asked for.

    Raises:
        ConfigError: There is no such experiment or trial, or it cannot do that.
    """
    folder = home.experiment(experiment_id)
    journaled = JournaledState(folder=folder)
    state = journaled.state.snapshot()
    if trial_id is not None and trial_id not in state.trials:
        raise ConfigError(
            f"experiment {experiment_id} has no trial {trial_id}",
            hint=f"see `detbuild describe {experiment_id}`",
        )
    if state.over and verb in {"pause", "activate"}:
        raise ConfigError(
            f"experiment {experiment_id} has ended: {state.state}",
            hint=f"`detbuild continue {experiment_id}` goes on with what was not completed",
        )
    if not _idle(journaled, verb, trial_id):
        if state.header.local and verb == "activate":
            raise needs_foreground(state)
        folder.request(verb, trial_id=trial_id)
        resume_one(folder)
    return state


def needs_foreground(state: ExperimentState) -> ConfigError:
    """Of a local experiment, which nobody can take up in the background."""
    id_, verb = state.header.id, "activate" if state.stop == StopVerb.PAUSE else "continue"
    return ConfigError(
        f"experiment {id_} is {state.state} and local: it goes on in the shell that says so",
        hint=f"`detbuild {verb} {id_}` there, once it is at rest",
    )


def _idle(journaled: JournaledState, verb: Verb, trial_id: int | None) -> bool:
    """Whether that is so already."""
    state = journaled.state
    if state.over or (trial_id is not None and state.trials[trial_id].ended):
        return True
    waiting = any(other.trial_id is None for other in journaled.requests())
    return not waiting and (
        (verb == "pause" and state.paused) or (verb == "activate" and state.stop != StopVerb.PAUSE)
    )


def resume(home: Home, emit: Emit = ignore) -> tuple[int, ...]:
    """Start a controller for every experiment that needs one and has none; return their ids.

    A damaged experiment gets none, and `emit` is told of it.
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
                from detbuild.controller.localsearch import finish_pending

                finish_pending(folder)
            else:
                start_detached(folder, held)
    except LeaseError:  # another process was quicker
        return False
    return True


def needs_controller(folder: ExperimentFolder) -> bool:
    """Whether there is something to do: it is neither over nor paused, or something was asked for since."""
    journaled = JournaledState(folder=folder)
    return not journaled.state.idle or bool(journaled.requests())


def has_work_left(folder: ExperimentFolder) -> bool:
    """The same, or it is over and left checkpoints to be uploaded or removed: that had failed too often."""
    if needs_controller(folder):
        return True
    state = JournaledState(folder=folder).state
    return state.over and state.stored.has_pending


class RequestWatcher:
    """Sees to it that an experiment has a controller while its end is waited for.

    A controller lives as long as its lease is held, however slow the host is.
    """

    def __init__(self, folder: ExperimentFolder, emit: Emit) -> None:
        self._folder, self._emit = folder, emit
        self._starts = 0
        self._start_at = 0.0
        self._rested: tuple[int, ...] = ()  # sizes of the files when nothing was left to do

    def poll(self) -> None:
        """Start a controller when one is needed and there is none.

        Raises:
            EngineError: It does not stay alive.
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
                f"the controller of experiment {folder.id} does not stay alive",
                hint=f"see {folder.log_file}; then `detbuild resume`",
            )
        if not resume_one(folder):
            return
        if died:
            self._emit(Warned(f"the controller of experiment {folder.id} is gone; starting another one"))
        self._starts += 1
        self._start_at = time.monotonic() + _PAUSE


def _size(file: Path) -> int:
    try:
        return file.stat().st_size  # allowed: its size alone
    except FileNotFoundError:
        return 0


def _polls(folder: ExperimentFolder, emit: Emit) -> Iterator[None]:
    """Yield again and again, and see to it that there is a controller meanwhile."""
    watcher = RequestWatcher(folder, emit)
    while True:
        yield
        time.sleep(_POLL)
        watcher.poll()
