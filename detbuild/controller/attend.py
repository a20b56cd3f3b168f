"""What other processes do about an experiment: follow it, wait for it, ask for its end, take it up again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from detbuild.controller.lease import holder, lease
from detbuild.controller.start import start_detached
from detbuild.errors import EngineError
from detbuild.events import Emit, Warned
from detbuild.store.follow import ExperimentTail
from detbuild.store.state import ExperimentState, fold, load
from detbuild.store.stored import Stored

if TYPE_CHECKING:
    from collections.abc import Iterator

    from detbuild.store.folder import ExperimentFolder
    from detbuild.store.home import Home

_POLL = 0.1  # seconds between looks at the files
_ABSENT = 3.0  # seconds without a controller after which a new one is started
_STARTS = 3  # how often that is tried before it is taken for a defect


def follow(home: Home, experiment_id: int, emit: Emit) -> ExperimentState:
    """Emit what happens and what happened so far, until the experiment is over.

    The experiment does not notice: the follower may be interrupted at any time.
    """
    tail = ExperimentTail(home.experiment(experiment_id))
    for _ in _looks(tail.folder, emit):
        tail.emit(emit)
        if tail.over:
            break
    return load(tail.folder)


def wait(home: Home, experiment_id: int, emit: Emit) -> ExperimentState:
    """Return the state of the experiment once it is over."""
    folder = home.experiment(experiment_id)
    for _ in _looks(folder, emit):
        if fold(folder.header(), folder.journal()).over:
            break
    return load(folder)


def request(home: Home, experiment_id: int, verb: str) -> ExperimentState:
    """Ask for the end of an experiment: "kill" or "cancel". If it has no controller now, it gets one."""
    folder = home.experiment(experiment_id)
    state = fold(folder.header(), folder.journal())
    if not state.over:
        folder.request(verb)
        resume_one(folder)
    return state


def resume(home: Home) -> tuple[int, ...]:
    """Start a controller for every experiment that is not over and has none; return their ids."""
    return tuple(folder.id for folder in _unfinished(home) if resume_one(folder))


def resume_one(folder: ExperimentFolder) -> bool:
    """Take up an experiment unless somebody holds it."""
    if holder(folder.lock_file) is not None:
        return False
    if folder.header().local:
        from detbuild.controller.local import settle

        with lease(folder.lock_file):
            settle(folder, exit_code=None)
    else:
        start_detached(folder)
    return True


def _unfinished(home: Home) -> Iterator[ExperimentFolder]:
    for number in home.ids():
        folder = home.folder(number)
        if folder.exists and _is_unfinished(folder):
            yield folder


def _is_unfinished(folder: ExperimentFolder) -> bool:
    """It has not ended, or not all of its checkpoints are where they belong."""
    entries = folder.journal()
    return not fold(folder.header(), entries).over or Stored.of(entry.fact for entry in entries).unsettled


def _looks(folder: ExperimentFolder, emit: Emit) -> Iterator[None]:
    """Yield again and again, and see to it that there is a controller meanwhile."""
    seen, starts = time.monotonic(), 0
    while True:
        yield
        time.sleep(_POLL)
        if holder(folder.lock_file) is not None:
            seen = time.monotonic()
        elif time.monotonic() - seen > _ABSENT:
            if starts == _STARTS:
                raise EngineError(
                    f"the controller of experiment {folder.id} does not stay alive",
                    mend=f"see {folder.log_file}; then `detbuild resume`",
                )
            emit(Warned(f"the controller of experiment {folder.id} is gone; starting another one"))
            resume_one(folder)
            seen, starts = time.monotonic(), starts + 1
