"""The state of an experiment, its trials and checkpoints, from its journal and the records of its runs.

`StateFold` folds the journal, each entry at constant cost; `load` adds the progress from the records. A run
that starts from a checkpoint repeats the batches that earlier runs trained after it. Their reports of these
batches are superseded, so that no batch is counted twice.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Final

from detbuild.search.method import (
    Action,
    Began,
    Close,
    Create,
    Finish,
    Stop,
    Train,
    TrialEnded,
    Validated,
    from_json,
)
from detbuild.store import journal
from detbuild.store.experiment_dir import Goal
from detbuild.store.records import RunRecords, read_run
from determined._contract.run_info import Length

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from detbuild.store.experiment_dir import ExperimentFolder, Header
    from determined._contract.records import Checkpoint, Stage, Training, Validation

__all__ = ["ENDED", "ExperimentState", "Goal", "RunState", "TrialState", "fold", "load", "run_records"]
WAITING_FOR_SEARCH = "paused by the search"
_RunFact = journal.RunIntended | journal.RunCreated | journal.RunFinished | journal.PolicyMatched


def fold(header: Header, entries: Iterable[journal.Entry]) -> ExperimentState:
    """Return the state from the journal alone; `progress` of the trials is empty."""
    return StateFold(header, entries).snapshot()


def run_records(folder: ExperimentFolder, trial: TrialState) -> tuple[RunRecords, ...]:
    """Read the records of all runs of a trial, in order."""
    return tuple(read_run(folder.run(trial.id, r.run), over=r.finished is not None) for r in trial.runs)


def load(
    folder: ExperimentFolder,
    read: Callable[[ExperimentFolder, TrialState], Sequence[RunRecords]] = run_records,
) -> ExperimentState:
    """Load the complete state of an experiment.

    Args:
        read: Reads the records of all runs of a trial.
    """
    header = folder.header()
    entries, damage = folder.journal_with_damage()
    folded = StateFold(header, entries)
    goal = header.goal

    def with_progress(trial: TrialState) -> TrialState:
        return replace(trial, progress=trial_progress(read(folder, trial), goal, folded.stored))

    state = folded.snapshot()
    trials = {number: with_progress(trial) for number, trial in state.trials.items()}
    return replace(state, trials=trials, damage=damage)


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


def stronger(one: StopVerb, other: StopVerb) -> StopVerb:
    """Return the stronger of two stop requests."""
    return max(one, other, key=tuple(StopVerb).index)


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
class CheckpointState:
    uuid: str
    run: int
    steps_completed: int
    size: int  # bytes
    files: int
    state: str  # COMPLETED, PARTIALLY_DELETED, DELETED, or ERROR if it was found damaged or missing
    uploaded: bool = False  # complete in the cloud
    foreign: str = ""  # why it belongs to another experiment, although a run reported it
    validation: Validation | None = None  # at the same batch


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    steps_completed: int = 0
    fraction: float | None = None
    stage: Stage | None = None
    best: Validation | None = None
    validations: tuple[Validation, ...] = ()
    training: Training | None = None  # the newest
    checkpoints: tuple[CheckpointState, ...] = ()  # newest first
    rejected_records: int = 0
    unknown_kinds: tuple[str, ...] = ()  # of skipped records


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
    released: bool = False  # its end was reported to the search, which receives no more of it
    stop: StopVerb = StopVerb.NONE
    since: int = 0  # the run from which failures count: the first one after a `continue`
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
    stop: StopVerb = StopVerb.NONE  # requested by a person: kill, cancel or pause
    trials: Mapping[int, TrialState] = field(default_factory=dict)
    decided: float = 0.0  # progress of the search by its own count, 0..1
    share: float = 0.0  # the part of a trial that ends; 0 if trials count differently
    damage: tuple[str, ...] = ()  # damaged places of the journal

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


_STOPPING_VERBS = {
    StopVerb.KILL: State.STOPPING_KILLED,
    StopVerb.CANCEL: State.STOPPING_CANCELED,
    StopVerb.PAUSE: State.STOPPING_PAUSED,
}


_FINAL = frozenset({StopVerb.KILL, StopVerb.CANCEL})


@dataclass(slots=True)
class _Tally:
    """The trials that ended in one state."""

    count: int = 0
    why: str = ""  # of the first one


class StateFold:
    """The mutable state of one experiment; `snapshot` returns it as a value.

    `running` trials have a run that has not ended; `ready` ones can take their next step, in this order. A
    trial whose run has just ended comes first, since other trials need its slot and the search its result.
    `waiting` ones wait for the search; `unreported` ones have ended, which the search has not received yet.
    """

    def __init__(self, header: Header, entries: Iterable[journal.Entry] = ()) -> None:
        self.header = header
        self.trials: dict[int, TrialState] = {}
        self.running: dict[int, None] = {}
        self.ready: OrderedDict[int, None] = OrderedDict()
        self.waiting: dict[int, None] = {}
        self.unreported: dict[int, None] = {}
        self.tallies = {state: _Tally() for state in ENDED}
        self.end: journal.ExperimentFinished | None = None
        self.ended_at: float | None = None
        self.stop = StopVerb.NONE  # the request for all trials: kill, cancel or pause
        self.failure = ""  # why the search failed
        self.paused = False  # all trials are paused
        self.began = False  # the search has started
        self.finishing = False  # the search creates no more trials
        self.progress = self.share = 0.0  # see `journal.Searched`
        self.length: Length | None = None  # the length of a `continue` for all trials
        self.last_request = 0  # number of the newest request that was applied
        self.stored = Stored()  # the state of the checkpoints
        self.entries = 0
        for entry in entries:
            self.enter(entry)

    @property
    def over(self) -> bool:
        return self.end is not None

    @property
    def idle(self) -> bool:
        """Whether no controller is needed."""
        return self.over or self.paused

    @property
    def ending(self) -> bool:
        """Whether all trials must end, by request or because the search failed."""
        return self.stop in _FINAL

    @property
    def living(self) -> int:
        """The number of trials that have not ended."""
        return len(self.running) + len(self.ready) + len(self.waiting)

    def enter(self, entry: journal.Entry) -> None:
        """Apply one entry of the journal."""
        self.entries += 1
        match entry.fact:
            case journal.Searched():
                self._searched(entry.fact)
            case journal.SearchFailed(why=why):
                self.failure = why
                self._ask_all(StopVerb.CANCEL)
            case journal.RequestApplied():
                self._apply_request(entry.fact)
            case journal.Paused():
                self.paused = True
            case journal.ExperimentFinished():
                self.end, self.ended_at = entry.fact, entry.time
            case fact if isinstance(fact, journal.StorageFact):
                self.stored.add(fact)
            case fact:
                self._trial(fact, entry.time)

    def forget(self, trial_id: int) -> None:
        """Drop the details of a trial that has ended, to save memory."""
        trial = self.trials[trial_id]
        self.trials[trial_id] = TrialState(id=trial_id, state=trial.state, released=trial.released)

    def snapshot(self) -> ExperimentState:
        """Return the current state as a value."""
        trials = dict(self.trials)
        if self.stop == StopVerb.PAUSE:
            for id_ in (*self.ready, *self.waiting):
                trials[id_] = replace(trials[id_], state=State.PAUSED)
        if self.end is not None:
            state, why = State(self.end.state), self.end.why
        else:
            state, why = self._state(), self.failure or self._why()
        why = "; ".join(text for text in (why, self.stored.blocked) if text)
        return ExperimentState(
            header=self.header,
            state=state,
            why=why,
            ended=self.ended_at,
            stop=self.stop,
            trials=trials,
            decided=self.progress,
            share=self.share,
        )

    def _state(self) -> State:
        if self.failure:
            return State.STOPPING_ERROR
        if self.stop:
            return State.PAUSED if self.paused else _STOPPING_VERBS[self.stop]
        running = any(self.trials[id_].state == State.RUNNING for id_ in self.running)
        waits_for_checkpoints = self.trials and not self.living
        return State.RUNNING if running or waits_for_checkpoints else State.QUEUED

    def _why(self) -> str:
        ids = (*self.running, *self.ready)
        return next((self.trials[id_].why for id_ in ids if self.trials[id_].why), "")

    # requests

    def _apply_request(self, fact: journal.RequestApplied) -> None:
        self.last_request = max(self.last_request, fact.number)
        if fact.verb == journal.Verb.CONTINUE:
            if self.idle:
                self._continue(Length(**fact.length) if fact.length else None)  # type: ignore[arg-type]
        elif self.over:
            return
        elif fact.trial_id is not None:
            self._ask(fact.trial_id, StopVerb(fact.verb))
        elif fact.verb == journal.Verb.ACTIVATE:
            if self.stop == StopVerb.PAUSE:
                self.stop, self.paused = StopVerb.NONE, False
        else:
            self._ask_all(StopVerb(fact.verb))

    def _ask(self, trial_id: int, verb: StopVerb) -> None:
        trial = self.trials.get(trial_id)
        if trial is not None and not trial.ended and verb in _FINAL:
            self._put(replace(trial, stop=stronger(trial.stop, verb)))

    def _ask_all(self, verb: StopVerb) -> None:
        self.stop = stronger(self.stop, verb)
        self.paused = self.paused and self.stop == StopVerb.PAUSE
        if self.ending:
            for trial_id in tuple(self.waiting):
                self._put(self.trials[trial_id])

    def _continue(self, length: Length | None) -> None:
        """Reopen all trials that are not completed, or with a `length` all trials, to train that long.

        A trial with a stop request that has not ended yet still ends.
        """
        self.length = length or self.length
        self.end, self.ended_at, self.stop, self.failure, self.paused = None, None, StopVerb.NONE, "", False
        for trial in tuple(self.trials.values()):
            kept = trial.state == State.COMPLETED and length is None
            if kept or (trial.stop in _FINAL and not trial.ended):
                continue
            if trial.ended:
                tally = self.tallies[trial.state]
                tally.count -= 1
                tally.why = tally.why if tally.count else ""
                self.unreported.pop(trial.id, None)
            self._put(_reopened(trial, length))

    # decisions of the search

    def _searched(self, fact: journal.Searched) -> None:
        event = from_json(fact.event)
        self.progress, self.share = fact.progress, fact.share
        if isinstance(event, Began):
            self.began = True
        elif isinstance(event, Validated):
            self._record_report(event.trial_id, fact.steps_completed)
        elif isinstance(event, TrialEnded):
            self.unreported.pop(event.trial_id, None)
            if event.trial_id in self.trials:
                self.trials[event.trial_id] = replace(self.trials[event.trial_id], released=True)
        for raw in fact.actions:
            action = from_json(raw)
            if isinstance(action, Create):
                self._create(action, tuple(fact.sources.get(str(action.trial_id), ())))
            elif isinstance(action, (Train, Stop, Close, Finish)):
                self._act(action)
        if isinstance(event, Validated) and event.trial_id in self.trials:
            self._put(_idle(self.trials[event.trial_id]))

    def _record_report(self, trial_id: int, steps_completed: int) -> None:
        """Record a validation that the search received, or the result of a segment."""
        trial = self.trials.get(trial_id)
        if trial is not None:
            segment_done = steps_completed < 0
            self.trials[trial_id] = replace(
                trial,
                segments_reported=trial.segment if segment_done else trial.segments_reported,
                steps_reported=max(trial.steps_reported, steps_completed),
            )

    def _create(self, action: Create, source: tuple[str, ...]) -> None:
        if action.trial_id in self.trials:  # an old journal without searches
            return
        self._put(
            TrialState(
                id=action.trial_id,
                state=State.WAITING,
                why=WAITING_FOR_SEARCH,
                seed=action.seed,
                hparams=action.hparams,
                source=source,
            )
        )

    def _act(self, action: Action) -> None:
        if isinstance(action, Finish):
            self.finishing = True
            for trial_id in tuple(self.waiting):
                self._put(replace(self.trials[trial_id], closed=True))
            return
        trial = self.trials.get(action.trial_id)
        if trial is None or trial.ended:
            return
        match action:
            case Train(length=length, milestones=milestones):
                woken = trial.open_run is None
                self._put(
                    replace(
                        trial,
                        segment=trial.segment + 1,
                        length=self.length or length,
                        milestones=milestones,
                        state=State.QUEUED if woken else trial.state,
                        why="" if woken else trial.why,
                    )
                )
            case Stop():
                self._put(replace(trial, stop=stronger(trial.stop, StopVerb.SEARCH)))
            case Close():
                self._put(replace(trial, closed=True))

    # trials

    def _trial(self, fact: journal.TrialFact, time: float) -> None:
        trial = self.trials.get(fact.trial_id, TrialState(id=fact.trial_id))
        if isinstance(fact, journal.TrialFinished) and not trial.ended:
            tally = self.tallies.get(State(fact.state))
            if tally is not None:
                tally.count, tally.why = tally.count + 1, tally.why or fact.why
            if not trial.released:
                self.unreported[trial.id] = None
        self._put(_advanced(trial, fact, time))

    def _put(self, trial: TrialState) -> None:
        """Store the trial and put it into the group that it belongs to."""
        self.trials[trial.id] = trial
        ran = trial.id in self.running
        is_ready = not trial.ended and trial.open_run is None and self._has_next_step(trial)
        for group in (self.running, self.waiting) if is_ready else (self.running, self.waiting, self.ready):
            group.pop(trial.id, None)
        if is_ready:
            self.ready.setdefault(trial.id, None)
            if ran:
                self.ready.move_to_end(trial.id, last=False)
        elif trial.open_run is not None:
            self.running[trial.id] = None
        elif not trial.ended:
            self.waiting[trial.id] = None

    def _has_next_step(self, trial: TrialState) -> bool:
        """Whether the trial has a next step that does not wait for the search."""
        return trial.state != State.WAITING or trial.closed or bool(trial.stop) or self.ending


def _idle(trial: TrialState) -> TrialState:
    """Return the trial as waiting for the search, if it has nothing else to do."""
    busy = (
        trial.ended or trial.open_run is not None or trial.segment > trial.segments_reported or trial.closed
    )
    return trial if busy else replace(trial, state=State.WAITING, why=WAITING_FOR_SEARCH)


def _reopened(trial: TrialState, length: Length | None) -> TrialState:
    state = State.QUEUED if trial.ended else trial.state
    since = trial.runs[-1].run + 1 if trial.runs else 0
    trial = replace(trial, state=state, why="" if trial.ended else trial.why, stop=StopVerb.NONE, since=since)
    if length is not None:
        return replace(trial, state=State.QUEUED, why="", segment=trial.segment + 1, length=length)
    return trial if trial.released else _idle(trial)


def _advanced(trial: TrialState, fact: journal.TrialFact, time: float) -> TrialState:
    match fact:
        case journal.TrialCreated():
            return replace(trial, seed=fact.seed, hparams=fact.hparams, segment=1, closed=True)
        case journal.Waiting():
            return replace(trial, why=fact.why)
        case journal.TrialFinished():
            return replace(trial, state=State(fact.state), why=fact.why)
        case of_run:
            return _with_run(trial, of_run, time)


def _with_run(trial: TrialState, fact: _RunFact, time: float) -> TrialState:
    """Apply a fact to its run; after a crash, an intent is written again with the same number."""
    run = next((run for run in trial.runs if run.run == fact.run), RunState(run=fact.run))
    state, why = trial.state, trial.why
    match fact:
        case journal.RunIntended():
            run = RunState(run=fact.run, segment=fact.segment)
        case journal.RunCreated():
            state, why = State.RUNNING, ""
            run = replace(run, created=True, container=fact.container, gpu_ids=fact.gpu_ids, started=time)
        case journal.PolicyMatched():
            run = _matched(run, fact)
        case journal.RunFinished():
            state = State.QUEUED
            run = replace(run, finished=fact, ended=time)
    runs = (*(other for other in trial.runs if other.run != run.run), run)
    return replace(trial, state=state, why=why, runs=runs)


def _matched(run: RunState, fact: journal.PolicyMatched) -> RunState:
    cancelled = run.retries_cancelled or fact.cancels_retries
    return replace(run, policies=(*run.policies, fact.name), retries_cancelled=cancelled)


@dataclass(kw_only=True, slots=True)
class Stored:
    """The storage state of all checkpoints, mutable because a search may have very many."""

    intended: set[str] = field(default_factory=set)  # upload intended: some files may be in the cloud
    begun: set[str] = field(default_factory=set)  # of these, those whose files in the cloud are ours
    foreign: dict[str, str] = field(default_factory=dict)  # uuid -> why it belongs to another experiment
    uploaded: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)  # uuid -> why it will never be uploaded
    deleted: set[str] = field(default_factory=set)
    pending_delete: set[str] = field(default_factory=set)  # deleted, but files may remain
    partly: dict[str, set[str]] = field(default_factory=dict)  # uuid -> deleted files
    partial_pending_delete: set[str] = field(default_factory=set)  # uuids
    blocked: str = ""  # why nothing can be stored or removed now

    @classmethod
    def of(cls, facts: Iterable[journal.Fact]) -> Stored:
        stored = cls()
        for fact in facts:
            stored.add(fact)
        return stored

    def add(self, fact: journal.Fact) -> None:
        match fact:
            case journal.UploadIntended() | journal.CheckpointUploaded() | journal.UploadRejected():
                self._add_upload(fact)
            case journal.CheckpointForeign(uuid=uuid, why=why):
                self.foreign[uuid] = why
                self.pending_delete.discard(uuid)
                self.partial_pending_delete.discard(uuid)
            case journal.CheckpointsDeleted(uuids=uuids):
                self.deleted.update(uuids)
                self.pending_delete.update(uuids)
            case journal.CheckpointsRemoved(uuids=uuids):
                self.pending_delete.difference_update(uuids)
            case journal.FilesDeleted(uuid=uuid, paths=paths):
                self.partly.setdefault(uuid, set()).update(paths)
                self.partial_pending_delete.add(uuid)
            case journal.FilesRemoved(uuid=uuid):
                self.partial_pending_delete.discard(uuid)
            case journal.StorageBlocked(why=why):
                self.blocked = why

    def _add_upload(
        self, fact: journal.UploadIntended | journal.CheckpointUploaded | journal.UploadRejected
    ) -> None:
        match fact:
            case journal.UploadIntended(uuid=uuid, free=free):
                self.intended.add(uuid)
                if free is not False:
                    self.begun.add(uuid)
            case journal.CheckpointUploaded(uuid=uuid):
                self.uploaded.add(uuid)
            case journal.UploadRejected(uuid=uuid, why=why):
                self.refused[uuid] = why

    @property
    def has_pending(self) -> bool:
        """Whether an upload or a removal is pending."""
        waiting = self.intended - self.uploaded - self.deleted - self.refused.keys() - self.foreign.keys()
        return bool(waiting or self.pending_delete or self.partial_pending_delete)

    def state(self, uuid: str, *, damaged: bool) -> str:
        """Return the state of a checkpoint in Determined's terms; `damaged` if a run found it so."""
        if uuid in self.foreign:
            return "ERROR"
        if uuid in self.deleted:
            return "DELETED"
        if uuid in self.partly:
            return "PARTIALLY_DELETED"
        if uuid in self.uploaded:
            return "COMPLETED"  # only a copy was damaged
        return "ERROR" if damaged or uuid in self.refused else "COMPLETED"

    def remaining(self, checkpoint: Checkpoint) -> Mapping[str, int]:
        """Return the files of a checkpoint and their sizes in bytes, without deleted ones."""
        deleted = self.partly.get(checkpoint.uuid)
        if deleted is None:
            return checkpoint.resources
        return {path: size for path, size in checkpoint.resources.items() if path not in deleted}


_NOTHING_STORED = Stored()


def trial_progress(runs: Sequence[RunRecords], goal: Goal, stored: Stored = _NOTHING_STORED) -> Progress:
    """Combine the records of all runs of a trial; `runs[0]` is run 0."""
    last_own = limits(runs)
    validations = tuple(
        v
        for run, limit in zip(runs, last_own, strict=True)
        for v in run.validations
        if v.steps_completed <= limit
    )
    last = runs[-1] if runs else RunRecords()
    steps = [
        n
        for run, limit in zip(runs, last_own, strict=True)
        if (n := run.steps_completed) is not None and n <= limit
    ]
    return Progress(
        steps_completed=steps[-1] if steps else 0,
        fraction=last.fraction,
        stage=last.stage,
        best=goal.best(validations),
        validations=validations,
        training=next((run.training for run in reversed(runs) if run.training), None),
        checkpoints=_checkpoints(runs, validations, stored),
        rejected_records=sum(run.rejected_records for run in runs),
        unknown_kinds=tuple(dict.fromkeys(kind for run in runs for kind in run.unknown_kinds)),
    )


def limits(runs: Sequence[RunRecords]) -> list[float]:
    """Return for each run the last batch that no later run repeated."""
    found = []
    limit = math.inf
    for start in reversed(_starts(runs)):
        found.append(limit)
        limit = min(limit, start)
    return found[::-1]


def _starts(runs: Sequence[RunRecords]) -> list[float]:
    """Return the batch that each run started from; infinity for a run that did not start training."""
    own: set[str] = set()
    starts = []
    for run in runs:
        if run.restored is not None and run.restored.uuid in own:
            starts.append(float(run.restored.steps_completed))
        else:  # from the beginning, or from the weights of another trial, which counts as the beginning
            starts.append(0.0 if run.trained or run.restored else math.inf)
        own |= {checkpoint.uuid for checkpoint in run.checkpoints}
    return starts


def _checkpoints(
    runs: Sequence[RunRecords], validations: Sequence[Validation], stored: Stored
) -> tuple[CheckpointState, ...]:
    rejected = {r.uuid for run in runs for r in run.rejected}
    by_steps = {v.steps_completed: v for v in validations}
    found = [
        _checkpoint(c, number, by_steps, stored.state(c.uuid, damaged=c.uuid in rejected), stored)
        for number, run in enumerate(runs)
        for c in run.checkpoints
    ]
    return tuple(reversed(found))


def _checkpoint(
    checkpoint: Checkpoint, run: int, validations: Mapping[int, Validation], state: str, stored: Stored
) -> CheckpointState:
    files = stored.remaining(checkpoint)
    return CheckpointState(
        uuid=checkpoint.uuid,
        run=run,
        steps_completed=checkpoint.steps_completed,
        size=sum(files.values()),
        files=len(files),
        state=state,
        uploaded=checkpoint.uuid in stored.uploaded,
        foreign=stored.foreign.get(checkpoint.uuid, ""),
        validation=validations.get(checkpoint.steps_completed),
    )
