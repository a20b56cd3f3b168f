"""From the journal and the records of the runs to the state of an experiment: how is it going?

`detbuild list`, `describe`, `wait`, the SDK and the controller itself all read their facts here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from detbuild.store import journal
from detbuild.store.progress import Goal, Progress, trial_progress
from detbuild.store.runs import RunRecords, read_run
from detbuild.store.stored import Stored

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from detbuild.store.folder import ExperimentFolder, Header

ENDED = frozenset({"COMPLETED", "CANCELED", "ERROR"})
_STOPPING = {"kill": "STOPPING_KILLED", "cancel": "STOPPING_CANCELED"}


@dataclass(frozen=True, kw_only=True, slots=True)
class RunState:
    run: int
    created: bool = False
    container: str = ""  # "" before it was created, and for a run on the host itself
    gpu_ids: tuple[str, ...] = ()
    started: float | None = None  # seconds since the epoch
    ended: float | None = None
    finished: journal.RunFinished | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialState:
    id: int
    state: str = "QUEUED"
    why: str = ""  # what it waits for, or why it ended
    seed: int = 0
    hparams: Mapping[str, object] = field(default_factory=dict)
    runs: tuple[RunState, ...] = ()
    progress: Progress = field(default_factory=Progress)

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def restarts(self) -> int:
        """How many of `max_restarts` are spent: failures that count and were, or are to be, tried again."""
        return sum(run.finished.counts and run.finished.retry for run in self.runs if run.finished)

    @property
    def open_run(self) -> RunState | None:
        """The run that was intended and has not ended."""
        return self.runs[-1] if self.runs and self.runs[-1].finished is None else None

    @property
    def last_run(self) -> journal.RunFinished | None:
        """How the newest finished run ended."""
        return next((run.finished for run in reversed(self.runs) if run.finished), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExperimentState:
    header: Header
    state: str = "QUEUED"
    why: str = ""
    ended: float | None = None  # seconds since the epoch
    trouble: str = ""  # with the storage of checkpoints
    stop: str = ""  # the verb that was asked for: "kill", "cancel" or ""
    trials: Mapping[int, TrialState] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        return self.state in ENDED


def fold(header: Header, entries: Iterable[journal.Entry]) -> ExperimentState:
    """What the journal alone says; `progress` of the trials is empty."""
    state = ExperimentState(header=header)
    for entry in entries:
        state = advance(state, entry)
    return state


def advance(state: ExperimentState, entry: journal.Entry) -> ExperimentState:
    """The state after one more journal entry."""
    match entry.fact:
        case journal.ExperimentFinished(state=name, why=why):
            return replace(state, state=name, why=_both(why, state.trouble), ended=entry.time)
        case journal.StorageTrouble(why=why):
            own = state.why.removesuffix(state.trouble).removesuffix("; ")
            return replace(state, trouble=why, why=_both(own, why))
        case journal.StopRequested(verb=verb):
            return _overall(replace(state, stop=verb))
        case fact if isinstance(fact, journal.StorageFact):
            return state  # `detbuild.store.stored` reads those
        case fact:
            trial = state.trials.get(fact.trial_id, TrialState(id=fact.trial_id))
            trials = {**state.trials, fact.trial_id: _advance_trial(trial, fact, entry.time)}
            return _overall(replace(state, trials=trials))


def _both(why: str, trouble: str) -> str:
    return "; ".join(text for text in (why, trouble) if text)


def _overall(state: ExperimentState) -> ExperimentState:
    going = [trial for trial in state.trials.values() if not trial.ended]
    running = any(trial.state == "RUNNING" for trial in going)
    why = _both(next((trial.why for trial in going if trial.why), ""), state.trouble)
    return replace(state, state=_STOPPING.get(state.stop, "RUNNING" if running else "QUEUED"), why=why)


def _advance_trial(trial: TrialState, fact: journal.TrialFact, time: float) -> TrialState:
    match fact:
        case journal.TrialCreated():
            return replace(trial, seed=fact.seed, hparams=fact.hparams)
        case journal.RunIntended():
            run = RunState(run=fact.run)
            return replace(trial, runs=(*_without(trial, fact.run), run))
        case journal.RunCreated():
            run = RunState(
                run=fact.run, created=True, container=fact.container, gpu_ids=fact.gpu_ids, started=time
            )
            return replace(trial, state="RUNNING", why="", runs=(*_without(trial, fact.run), run))
        case journal.RunFinished():
            before = next((r for r in trial.runs if r.run == fact.run), RunState(run=fact.run))
            runs = (*_without(trial, fact.run), replace(before, finished=fact, ended=time))
            return replace(trial, state="QUEUED", runs=runs)
        case journal.Waiting():
            return replace(trial, why=fact.why)
        case journal.TrialFinished():
            return replace(trial, state=fact.state, why=fact.why)


def _without(trial: TrialState, run: int) -> tuple[RunState, ...]:
    """An intent that a crash cut short is written again under the same number."""
    return tuple(r for r in trial.runs if r.run != run)


def load(folder: ExperimentFolder) -> ExperimentState:
    """Read everything that the files of an experiment say."""
    header = folder.header()
    entries = folder.journal()
    state, stored = fold(header, entries), Stored.of(entry.fact for entry in entries)
    goal = Goal(header.metric, header.smaller_is_better)

    def with_progress(trial: TrialState) -> TrialState:
        return replace(trial, progress=trial_progress(run_records(folder, trial), goal, stored))

    return replace(state, trials={number: with_progress(trial) for number, trial in state.trials.items()})


def run_records(folder: ExperimentFolder, trial: TrialState) -> tuple[RunRecords, ...]:
    """Read the records of all runs of a trial, in order."""
    return tuple(read_run(folder.run(trial.id, r.run), over=r.finished is not None) for r in trial.runs)
