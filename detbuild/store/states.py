"""The state of an experiment, its trials and runs, as values.

`store.ledger` computes them from the journal, `store.state` loads them from the files of an experiment.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

from detbuild.store.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping

    from detbuild.store import journal
    from detbuild.store.folder import Header
    from determined._run_info import Length


class State(str, Enum):
    """The state of an experiment or a trial; JSON has the value, text the label."""

    QUEUED = "QUEUED"  # waits for slots
    RUNNING = "RUNNING"
    WAITING = "WAITING"  # a trial between two decisions of its search
    PAUSED = "PAUSED"
    STOPPING_PAUSED = "STOPPING_PAUSED"
    STOPPING_CANCELED = "STOPPING_CANCELED"
    STOPPING_KILLED = "STOPPING_KILLED"
    STOPPING_ERROR = "STOPPING_ERROR"
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"
    ERROR = "ERROR"
    DELETING = "DELETING"  # its deletion was interrupted

    __str__ = str.__str__

    @classmethod
    def _missing_(cls, _value: object) -> State:
        return cls.ERROR  # from a damaged journal

    @property
    def label(self) -> str:
        """`running`, `stopping (cancel)`."""
        return _STOPPING.get(self, self.value.lower())


_STOPPING: Final = {
    State.STOPPING_PAUSED: "stopping (pause)",
    State.STOPPING_CANCELED: "stopping (cancel)",
    State.STOPPING_KILLED: "stopping (kill)",
    State.STOPPING_ERROR: "stopping (error)",
}
ENDED: Final = frozenset({State.COMPLETED, State.CANCELED, State.ERROR})


class StopVerb(str, Enum):
    """A stop request of a run, from weakest to strongest."""

    NONE = ""
    PAUSE = "pause"
    SEARCH = "search"
    CANCEL = "cancel"
    KILL = "kill"

    __str__ = str.__str__
    __hash__ = str.__hash__


@dataclass(frozen=True, kw_only=True, slots=True)
class RunState:
    run: int
    segment: int = 1
    created: bool = False
    container: str = ""  # "" before it is created, and for a run on the host itself
    gpu_ids: tuple[str, ...] = ()
    started: float | None = None  # seconds since the epoch
    ended: float | None = None
    policies: tuple[str, ...] = ()  # log policies that its output matched
    retries_cancelled: bool = False  # by one of them
    finished: journal.RunFinished | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialState:
    """A trial; a search trains it in segments of increasing `length`."""

    id: int
    state: State = State.QUEUED
    why: str = ""  # why it is queued or waits, or how it ended
    seed: int = 0
    hparams: Mapping[str, object] = field(default_factory=dict)
    source: tuple[str, ...] = ()  # checkpoints of its parent trial, newest first
    segment: int = 0  # number of segments that the search has requested
    segments_reported: int = 0  # number of segments whose result was reported to the search
    length: Length | None = None  # of the newest segment; None: the trial's code decides
    milestones: tuple[int, ...] = ()
    steps_reported: int = -1  # batches of the newest validation that was reported to the search
    closed: bool = False  # it ends with its segment
    released: bool = False  # the search was told of its end, and hears no more of it
    stop: StopVerb = StopVerb.NONE
    since: int = 0  # the run from which failures count: what came before, a person has let pass
    runs: tuple[RunState, ...] = ()
    progress: Progress = field(default_factory=Progress)

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def restarts(self) -> int:
        """The number of `max_restarts` used: failures that count and are retried."""
        new = [run.finished for run in self.runs if run.finished and run.run >= self.since]
        return sum(finished.counts and finished.retry for finished in new)

    @property
    def open_run(self) -> RunState | None:
        """The run that has not ended, if any."""
        return self.runs[-1] if self.runs and self.runs[-1].finished is None else None

    @property
    def last_run(self) -> journal.RunFinished | None:
        """The result of the newest finished run."""
        return next((run.finished for run in reversed(self.runs) if run.finished), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExperimentState:
    header: Header
    state: State = State.QUEUED
    why: str = ""
    ended: float | None = None  # seconds since the epoch
    stop: StopVerb = StopVerb.NONE  # asked for by a person: kill, cancel or pause
    trials: Mapping[int, TrialState] = field(default_factory=dict)
    decided: float = 0.0  # how much the search has done by its own count, 0..1
    share: float = 0.0  # what a trial adds to that when it ends; 0 where trials differ in that
    damage: tuple[str, ...] = ()  # places at which the journal is not as it was written

    @property
    def over(self) -> bool:
        return self.state in ENDED

    @property
    def progress(self) -> float:
        """Progress, 0..1: that of the search, plus fractions of running trials if all count the same."""
        if self.state == State.COMPLETED:
            return 1.0
        short = [trial for trial in self.trials.values() if trial.state != State.COMPLETED]
        counted = sum(trial.released for trial in short)  # already counted by the search
        parts = sum(trial.progress.fraction or 0.0 for trial in short)
        return min(1.0, max(0.0, self.decided + self.share * (parts - counted)))


def stronger(one: StopVerb, other: StopVerb) -> StopVerb:
    """Return the stronger of two stop requests."""
    return max(one, other, key=tuple(StopVerb).index)
