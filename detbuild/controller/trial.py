"""Runs one trial, run after run, until it has ended.

`TrialDriver` decides between runs. Its run driver creates, starts and observes one run, and classifies its
end. `RecordListener` forwards the run's records and output to the search and the journal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from detbuild.controller.policies import Policy, PolicyWatch
from detbuild.controller.retry import (
    Backoff,
    End,
    FreeSpace,
    Launch,
    ReportSegment,
    Wait,
    failures,
    next_step,
    pause,
)
from detbuild.controller.search import run_request
from detbuild.errors import DiskFullError, EngineError
from detbuild.runtime.limits import memory_limit, memory_source
from detbuild.runtime.outcome import Evidence, Outcome, judge
from detbuild.runtime.plan import grace, plan_demand, plan_run
from detbuild.runtime.protocol import Phase, Reason, RunKey, Waiting
from detbuild.store import journal
from detbuild.store.annotations import read_attributes, with_attributes
from detbuild.store.experiment_dir import checkpoint_storage
from detbuild.store.logs import TAIL_LINES, tail
from detbuild.store.records import RecordFile, RunRecords, extended
from detbuild.store.state import State, StopVerb, run_records, stronger

if TYPE_CHECKING:
    from detbuild.controller.context import ControllerContext
    from detbuild.controller.search import Search
    from detbuild.controller.state import JournaledState
    from detbuild.runtime.protocol import Demand, Observation, Placement, Refused, RunPaths, Signal
    from detbuild.store.state import RunState, TrialState

_ATTEMPTS = 3  # refused starts before the run ends in error
_SETTLE = 10.0  # seconds after which SIGTERM is sent to a run that has not reported its start
_KILL_AGAIN = 5.0  # seconds after which an ineffective SIGKILL is repeated
_MOST = 64 << 20  # bytes of records in one poll, so that a run that floods does not block the others


@dataclass(frozen=True, slots=True)
class _Pause:
    """The back-off after a failed run."""

    run: int
    until: float  # on the controller's clock
    free_space: FreeSpace | None  # ends early once space is free


@dataclass(frozen=True, slots=True)
class Ready:
    """It has taken a step, or its run is going."""

    notice: str = ""  # about the run


@dataclass(frozen=True, slots=True)
class Done:
    """It has ended."""


Progress = Ready | Waiting | Done


class TrialDriver:
    """The driver of one trial. It keeps no state that must survive a crash: the journal has it."""

    def __init__(self, context: ControllerContext, search: Search, trial_id: int) -> None:
        self.context = context
        self.search = search
        self.trial_id = trial_id
        self._driver: _RunDriver | None = None
        self._backoff = Backoff(context.clock)
        self._current_pause: _Pause | None = None

    @property
    def trial(self) -> TrialState:
        return self.context.state.trials[self.trial_id]

    def step(self) -> Progress:
        """Do the next step; on infrastructure errors, record why and retry with back-off."""
        if self._backoff.active:
            return Waiting(self.trial.why)
        try:
            progress = self._next()
        except EngineError as error:
            progress = Waiting(f"{error}; {error.hint}" if error.hint else str(error))
            self._backoff.failed()
        else:
            self._backoff.reset()
        if self.trial.ended:
            return Done()
        self._journal(progress)
        return progress

    def _journal(self, progress: Progress) -> None:
        """Journal what the trial waits for."""
        why = progress.why if isinstance(progress, Waiting) else getattr(progress, "notice", "")
        if self.trial.state == State.WAITING or self.trial.why == why:
            return
        try:
            self.context.record(journal.Waiting(trial_id=self.trial_id, why=why))
        except EngineError:
            self._backoff.failed()  # not even that can be journaled; retried later

    def settle(self) -> None:
        """End the open run, if any; whether it still runs is the runtime's affair."""
        if self.trial.open_run is not None:
            self._driver_of(self.trial.open_run.run).settle()

    def _next(self) -> Progress:
        run = self.trial.open_run
        if run is None:
            return self._between_runs()
        driver = self._driver_of(run.run)
        if run.created:
            return driver.watch()
        if driver.stop:
            return driver.abandon()
        return driver.launch()

    def _driver_of(self, run: int) -> _RunDriver:
        if self._driver is None or self._driver.key.run != run:
            self._driver = _RunDriver(self.context, self.search, self.trial_id, run)
        return self._driver

    def _between_runs(self) -> Progress:
        trial, state = self.trial, self.context.state
        if state.stop == StopVerb.PAUSE:
            return Ready()
        step = next_step(
            trial,
            stop=stronger(state.stop, trial.stop),
            needs_every_validation=self.search.needs_every_validation,
            max_restarts=self.context.max_restarts,
        )
        match step:
            case End(state=name, why=why):
                self.context.record(journal.TrialFinished(trial_id=trial.id, state=name, why=why))
            case ReportSegment():
                self.search.segment_done(trial.id)
            case Launch(after=failure):
                return self._pause(failure) or self._driver_of(len(trial.runs)).launch()
            case Wait():
                return Waiting("", blocks_others=False)
        return Ready()

    def _pause(self, last: journal.RunFinished | None) -> Waiting | None:
        """Return the back-off after a failed run, or None if the next one may start now."""
        if last is None:
            return None
        if self._current_pause is None or self._current_pause.run != last.run:
            self._current_pause = self._new_pause(last)
        if self.context.clock.now() >= self._current_pause.until or (
            self._current_pause.free_space and self._current_pause.free_space.available()
        ):
            return None
        return Waiting(f"{last.message}; {last.hint or 'retrying after a pause'}", blocks_others=False)

    def _new_pause(self, last: journal.RunFinished) -> _Pause:
        finished = [run.finished for run in self.trial.runs if run.finished]
        until = self.context.clock.now() + pause(finished)
        if last.outcome != Outcome.DISK_FULL.value:
            return _Pause(last.run, until, None)
        storage = checkpoint_storage(self.context.config, self.context.folder)
        newest = run_records(self.context.folder, self.trial)[-1].checkpoints[-1:]
        needed = sum(newest[0].resources.values()) if newest else 0
        path = storage.on_host or self.context.folder.checkpoints
        return _Pause(last.run, until, FreeSpace(path, needed=needed))


class _RunDriver:
    """The driver of one run. Its memory is only a cache and may be lost at any moment."""

    def __init__(self, context: ControllerContext, search: Search, trial_id: int, run: int) -> None:
        self.context = context
        self.key = RunKey(context.home_id, context.folder.id, trial_id, run)
        self.folder = context.folder.run(trial_id, run)
        self._runtime = context.runtime
        self._listener = RecordListener(context, search, context.policies, trial_id=trial_id, run=run)
        self._began = context.clock.now()
        self._observe_at = self._began
        self._sent: dict[Signal, float] = {}  # when
        self._starting = False
        self._attempts = 0
        self._waiting: Waiting | None = None  # for its launch
        self._launch_at = self._began
        self._origins: tuple[str, ...] | None = None  # checkpoints to start from: the first whole one

    @property
    def trial(self) -> TrialState:
        return self.context.state.trials[self.key.trial_id]

    @property
    def stop(self) -> StopVerb:
        """The strongest stop verb of trial and experiment."""
        return stronger(self.context.state.stop, self.trial.stop)

    def launch(self) -> Progress:
        """Create and start the run, once it has a checkpoint to start from and slots."""
        if self._waiting is not None and self.context.clock.now() < self._launch_at:
            return self._waiting
        progress = self._restored() or self._create()
        self._waiting = progress if isinstance(progress, Waiting) else None
        if self._waiting is not None:
            self._launch_at = self.context.clock.now() + self._waiting.retry_in
        return progress

    def _restored(self) -> Waiting | None:
        """Restore a checkpoint to start from to this host."""
        if self._origins is None:
            request = run_request(self.context, self.trial, self.key.run)
            self._origins = request.checkpoints or request.source
        why = self.context.restore_files(self._origins)
        return Waiting(why, blocks_others=False) if why else None

    def _create(self) -> Progress:
        with self._runtime.place(self._demand()) as placed:
            if isinstance(placed, Waiting):
                return placed
            created = placed.created or self._create_placed(placed)
        if not isinstance(created, str):
            return self._not_started(created)
        key = self.key
        self.context.record(
            journal.RunCreated(trial_id=key.trial_id, run=key.run, container=created, gpu_ids=placed.gpus)
        )
        return self._start()

    @property
    def _paths(self) -> RunPaths:
        return self._runtime.paths(self.context.config, self.context.folder, self.key)

    def _demand(self) -> Demand:
        """Return the slots that the run needs, with the priority and weight as last set."""
        config = with_attributes(self.context.config, read_attributes(self.context.folder.path))
        return plan_demand(config, self.key, self.context.state.header.user)

    def _create_placed(self, placed: Placement) -> str | Waiting | Refused:
        request = run_request(self.context, self.trial, self.key.run)
        spec = plan_run(self.context.config, request, self.context.owner, self._paths, placed.gpus)
        self.context.folder.prepare_run(spec.info)
        self.context.record(
            journal.RunIntended(trial_id=self.key.trial_id, run=self.key.run, segment=self.trial.segment)
        )
        return self._runtime.create(spec)

    def abandon(self) -> Progress:
        """End a run that was stopped before it started."""
        outcome = Outcome.KILLED if self.stop == StopVerb.KILL else Outcome.PREEMPTED
        return self._finish(
            journal.RunFinished(
                trial_id=self.key.trial_id,
                run=self.key.run,
                outcome=outcome.value,
                asked=self.stop,
                retry=self.stop == StopVerb.PAUSE,
            )
        )

    def settle(self) -> None:
        """Finish the run as it is found."""
        self._end(self._runtime.observe(self.key))

    def watch(self) -> Progress:
        """Observe the run, forward stops to it, and finish it once it has ended."""
        self._listener.poll()
        self._signal()
        if self.context.clock.now() < self._observe_at and self._listener.records.exited is None:
            return Ready(matched(self._listener.run))
        self._observe_at = self.context.clock.now() + self._runtime.observe_interval
        observed = self._runtime.observe(self.key)
        match observed.phase:
            case Phase.CREATED if self.stop and not self._starting:
                return self.abandon()
            case Phase.CREATED if observed.reason in {Reason.UNSCHEDULABLE, Reason.IMAGE_MISSING}:
                return Waiting(f"{observed.reason.value}: {observed.message}", blocks_others=False)
            case Phase.CREATED:
                return self._start()
            case Phase.RUNNING:
                return Ready(observed.message or matched(self._listener.run))
            case _:
                return self._end(observed)

    def _start(self) -> Progress:
        started = self._runtime.start(self.key)
        self._starting = started is False
        return Ready() if isinstance(started, bool) else self._not_started(started)

    def _not_started(self, answer: Waiting | Refused) -> Progress:
        """Return what the run waits for, or end it after too many attempts."""
        if isinstance(answer, Waiting):
            return answer
        self._attempts += 1
        if isinstance(answer.error, DiskFullError) or self._attempts < _ATTEMPTS:
            raise answer.error
        return self._finish(
            journal.RunFinished(
                trial_id=self.key.trial_id,
                run=self.key.run,
                outcome=Outcome.NOT_RETRYABLE.value,
                message=f"the {self._runtime.kind} could not start: {answer.error}",
                hint=answer.error.hint,
            )
        )

    def _signal(self) -> None:
        stop, now = self.stop, self.context.clock.now()
        overdue = now - self._sent.get("SIGTERM", now) > grace(self.context.config)
        if stop == StopVerb.KILL or overdue:
            if now - self._sent.get("SIGKILL", -_KILL_AGAIN) >= _KILL_AGAIN:
                self._send("SIGKILL")
        elif stop and "SIGTERM" not in self._sent and self._listens(now):
            self._send("SIGTERM")

    def _listens(self, now: float) -> bool:
        """Whether SIGTERM has an effect: process 1 of a container ignores signals without a handler."""
        listens = self._runtime.kind == "process" or self._listener.records.started
        return listens or now - self._began > _SETTLE

    def _send(self, signal: Signal) -> None:
        self._runtime.signal(self.key, signal)
        self._sent[signal] = self._observe_at = self.context.clock.now()

    def _end(self, observed: Observation) -> Progress:
        self._listener.poll(over=True)
        records, config = self._listener.records, self.context.config
        asked, host_memory = config.resources.memory, observed.host_memory
        memory = observed.memory or (memory_limit(asked, host_memory) if host_memory else 0)
        evidence = Evidence(
            records=records,
            observed=observed,
            stop=self.stop,
            memory=memory,
            memory_source=memory_source(asked, host_memory, memory),
            tail=tail(self.folder) if records.started else self._output_tail(observed),
            kind=self._runtime.kind,
            directory=self._paths.context_dir,
            before=next(reversed(failures(self.trial)), None),
        )
        left = self.context.max_restarts - self.trial.restarts
        finished = judge(evidence, trial_id=self.key.trial_id, run=self.key.run, restarts_left=left)
        finished = apply_policies(finished, self._listener.run)
        retry = finished.retry and (self.context.retries or finished.asked == StopVerb.PAUSE)
        return self._finish(replace(finished, retry=retry))

    def _output_tail(self, observed: Observation) -> tuple[str, ...]:
        """Return the last lines of output of a run whose harness never started."""
        if observed.phase is Phase.GONE:
            return tail(self.folder)
        return self._runtime.output_tail(self.key, TAIL_LINES)

    def _finish(self, finished: journal.RunFinished) -> Progress:
        """Journal the end; from now on the runtime may remove the run."""
        self.context.record(finished)
        self.context.runs_removed = False
        return Ready()


class RecordListener:
    """A reader of one run. Its memory is only a cache: everything can be read again."""

    def __init__(
        self,
        journaled: JournaledState,
        search: Search,
        policies: tuple[Policy, ...],
        *,
        trial_id: int,
        run: int,
    ) -> None:
        self._journaled, self._search = journaled, search
        self._trial_id, self._number = trial_id, run
        folder = journaled.folder.run(trial_id, run)
        self._file = RecordFile(folder)
        self._watch = PolicyWatch(folder, policies)
        self._reported = 0  # validations forwarded to the search
        self.records = RunRecords()

    @property
    def run(self) -> RunState:
        runs = self._journaled.state.trials[self._trial_id].runs
        return next(run for run in runs if run.run == self._number)

    def poll(self, *, over: bool = False) -> None:
        """Read new records, or all that are left when the run is `over`.

        Raises:
            DiskFullError: No free space for the journal; the next poll retries.
        """
        lines = self._file.rest() if over else self._file.new(_MOST)
        self.records = replace(extended(self.records, lines), unreadable=self._file.unreadable)
        for validation in self.records.validations[self._reported :]:
            self._search.on_validation(self._trial_id, validation)
            self._reported += 1
        for policy in self._watch.matched(self.run.policies, over=over):
            self._journaled.record(
                journal.PolicyMatched(
                    trial_id=self._trial_id,
                    run=self._number,
                    name=policy.name,
                    cancels_retries=policy.cancels_retries,
                )
            )


def matched(run: RunState) -> str:
    """Return which log policies the run's output matched, as text."""
    if not run.policies:
        return ""
    return f"its log matches the polic{'ies' if len(run.policies) > 1 else 'y'} {', '.join(run.policies)}"


def apply_policies(finished: journal.RunFinished, run: RunState) -> journal.RunFinished:
    """Apply the log policies that the run's output matched."""
    if not run.policies or Outcome(finished.outcome).succeeded:
        return finished
    message = "; ".join(text for text in (finished.message, matched(run)) if text)
    if not run.retries_cancelled or not finished.counts:
        return replace(finished, message=message)
    return replace(finished, message=f"{message}, which cancels retries", retry=False)
