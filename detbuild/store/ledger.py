"""Folds the journal of one experiment to its state, each entry at constant cost."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

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
from detbuild.store.states import ENDED, ExperimentState, RunState, State, StopVerb, TrialState, stronger
from detbuild.store.stored import Stored
from determined._run_info import Length

if TYPE_CHECKING:
    from collections.abc import Iterable

    from detbuild.store.folder import Header

WAITING_FOR_SEARCH = "paused by the search"
_STOPPING = {
    StopVerb.KILL: State.STOPPING_KILLED,
    StopVerb.CANCEL: State.STOPPING_CANCELED,
    StopVerb.PAUSE: State.STOPPING_PAUSED,
}
_RunFact = journal.RunIntended | journal.RunCreated | journal.RunFinished | journal.PolicyMatched
_FINAL = frozenset({StopVerb.KILL, StopVerb.CANCEL})


@dataclass(slots=True)
class Tally:
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
        self.tallies = {state: Tally() for state in ENDED}
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
        why = "; ".join(text for text in (why, self.stored.trouble) if text)
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
            return State.PAUSED if self.paused else _STOPPING[self.stop]
        running = any(self.trials[id_].state == State.RUNNING for id_ in self.running)
        waits_for_checkpoints = self.trials and not self.living
        return State.RUNNING if running or waits_for_checkpoints else State.QUEUED

    def _why(self) -> str:
        ids = (*self.running, *self.ready)
        return next((self.trials[id_].why for id_ in ids if self.trials[id_].why), "")

    # requests

    def _apply_request(self, fact: journal.RequestApplied) -> None:
        self.last_request = max(self.last_request, fact.number)
        if fact.verb == "continue":
            if self.idle:
                self._go_on(Length(**fact.length) if fact.length else None)  # type: ignore[arg-type]
        elif self.over:
            return
        elif fact.trial_id is not None:
            self._ask(fact.trial_id, StopVerb(fact.verb))
        elif fact.verb == "activate":
            if self.stop == StopVerb.PAUSE:
                self.stop, self.paused = StopVerb.NONE, False
        else:
            self._ask_all(StopVerb(fact.verb))

    def _ask(self, trial_id: int, verb: StopVerb) -> None:
        trial = self.trials.get(trial_id)
        if trial is not None and not trial.ended and verb in _FINAL:
            self._place(replace(trial, stop=stronger(trial.stop, verb)))

    def _ask_all(self, verb: StopVerb) -> None:
        self.stop = stronger(self.stop, verb)
        self.paused = self.paused and self.stop == StopVerb.PAUSE
        if self.ending:
            for trial_id in tuple(self.waiting):
                self._place(self.trials[trial_id])

    def _go_on(self, length: Length | None) -> None:
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
            self._place(_reopened(trial, length))

    # decisions of the search

    def _searched(self, fact: journal.Searched) -> None:
        event = from_json(fact.event)
        self.progress, self.share = fact.progress, fact.share
        if isinstance(event, Began):
            self.began = True
        elif isinstance(event, Validated):
            self._told(event.trial_id, fact.steps_completed)
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
            self._place(_idle(self.trials[event.trial_id]))

    def _told(self, trial_id: int, steps_completed: int) -> None:
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
        self._place(
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
                self._place(replace(self.trials[trial_id], closed=True))
            return
        trial = self.trials.get(action.trial_id)
        if trial is None or trial.ended:
            return
        match action:
            case Train(length=length, milestones=milestones):
                woken = trial.open_run is None
                self._place(
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
                self._place(replace(trial, stop=stronger(trial.stop, StopVerb.SEARCH)))
            case Close():
                self._place(replace(trial, closed=True))

    # trials

    def _trial(self, fact: journal.TrialFact, time: float) -> None:
        trial = self.trials.get(fact.trial_id, TrialState(id=fact.trial_id))
        if isinstance(fact, journal.TrialFinished) and not trial.ended:
            tally = self.tallies.get(State(fact.state))
            if tally is not None:
                tally.count, tally.why = tally.count + 1, tally.why or fact.why
            if not trial.released:
                self.unreported[trial.id] = None
        self._place(_advanced(trial, fact, time))

    def _place(self, trial: TrialState) -> None:
        """Store the trial and put it into the group that it belongs to."""
        self.trials[trial.id] = trial
        ran = trial.id in self.running
        is_ready = not trial.ended and trial.open_run is None and self._wanted(trial)
        for place in (self.running, self.waiting) if is_ready else (self.running, self.waiting, self.ready):
            place.pop(trial.id, None)
        if is_ready:
            self.ready.setdefault(trial.id, None)
            if ran:
                self.ready.move_to_end(trial.id, last=False)
        elif trial.open_run is not None:
            self.running[trial.id] = None
        elif not trial.ended:
            self.waiting[trial.id] = None

    def _wanted(self, trial: TrialState) -> bool:
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
