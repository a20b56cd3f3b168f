"""Runs one trial, run after run, until it has ended.

`TrialDriver` decides between runs. Its run driver creates, starts and watches the container of one run, and
classifies its end. `RecordListener` forwards the run's records and output to the search and the journal.
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
from detbuild.runtime.gpus import LABEL, Gpu, won
from detbuild.runtime.limits import memory_limit, memory_source
from detbuild.runtime.outcome import Evidence, Outcome, judge
from detbuild.runtime.plan import container_name, grace, plan_run
from detbuild.runtime.slot_queue import POLL, slot_request
from detbuild.store import journal
from detbuild.store.annotations import read_attributes, with_attributes
from detbuild.store.experiment_dir import checkpoint_storage
from detbuild.store.logs import TAIL_LINES, tail
from detbuild.store.records import RecordFile, RunRecords, extended
from detbuild.store.state import State, StopVerb, run_records, stronger

if TYPE_CHECKING:
    from concurrent.futures import Future

    from detbuild.controller.context import ControllerContext
    from detbuild.controller.search import Search
    from detbuild.controller.state import JournaledState
    from detbuild.engine.protocol import ContainerState
    from detbuild.runtime.slot_requests import SlotRequest
    from detbuild.store.state import RunState, TrialState

_INSPECT = 1.0  # seconds between two inspections of a running container
_ATTEMPTS = 3  # failed starts of a container before the run ends in error
_SETTLE = 10.0  # seconds after which SIGTERM is sent to a run that has not reported its start
_KILL_AGAIN = 5.0  # seconds after which an ineffective SIGKILL is repeated
_MOST = 64 << 20  # bytes of records in one poll, so that a run that floods does not block the others


@dataclass(frozen=True, slots=True)
class _Pause:
    """The back-off after a failed run."""

    run: int
    until: float  # on the controller's clock
    free_space: FreeSpace | None  # ends early once space is free


class TrialDriver:
    """The driver of one trial. It keeps no state that must survive a crash: the journal has it.

    `blocked`: the trials after it would wait for the same. `idle`: it waits for something of its own.
    """

    def __init__(self, context: ControllerContext, search: Search, trial_id: int) -> None:
        self.context = context
        self.search = search
        self.trial_id = trial_id
        self.blocked = self.idle = False
        self._driver: _RunDriver | None = None
        self._backoff = Backoff(context.clock)
        self._current_pause: _Pause | None = None

    @property
    def trial(self) -> TrialState:
        return self.context.state.trials[self.trial_id]

    def step(self) -> None:
        """Do the next step; on infrastructure errors, record why and retry with back-off."""
        self.blocked = self._backoff.active
        if self.blocked:
            return
        try:
            why = self._next()
        except EngineError as error:
            why = f"{error}; {error.hint}" if error.hint else str(error)
            self._backoff.failed()
            self.blocked = True
        else:
            self._backoff.reset()
        self._say(why)

    def _say(self, why: str) -> None:
        """Journal what the trial waits for."""
        if self.trial.ended or self.trial.state == State.WAITING or self.trial.why == why:
            return
        try:
            self.context.record(journal.Waiting(trial_id=self.trial_id, why=why))
        except EngineError:
            self._backoff.failed()  # not even that can be journaled; retried later

    def _next(self) -> str:
        """Return what the trial waits for, or ""."""
        run = self.trial.open_run
        if run is None:
            return self._between_runs()
        driver = self._driver_of(run.run)
        if run.created:
            return driver.watch(run.container)
        if driver.stop:
            driver.abandon()
            return ""
        return self._launch(driver)

    def _driver_of(self, run: int) -> _RunDriver:
        if self._driver is None or self._driver.run != run:
            self._driver = _RunDriver(self.context, self.search, self.trial_id, run)
        return self._driver

    def _between_runs(self) -> str:
        trial, state = self.trial, self.context.state
        self.idle = False
        if state.stop == StopVerb.PAUSE:
            return ""
        step = next_step(
            trial,
            stop=stronger(state.stop, trial.stop),
            needs_every_validation=self.search.needs_every_validation,
            max_restarts=self.context.config.max_restarts,
        )
        match step:
            case End(state=name, why=why):
                self.context.record(journal.TrialFinished(trial_id=trial.id, state=name, why=why))
            case ReportSegment():
                self.search.segment_done(trial.id)
            case Launch(after=failure):
                why = self._pause(failure)
                self.idle = bool(why)
                return why or self._launch(self._driver_of(len(trial.runs)))
            case Wait():
                self.idle = True
        return ""

    def _launch(self, driver: _RunDriver) -> str:
        why = driver.launch()
        self.idle = driver.restoring
        self.blocked = bool(why) and not driver.restoring
        return why

    def _pause(self, last: journal.RunFinished | None) -> str:
        """Return why the next run waits, or "" if it may start now."""
        if last is None:
            return ""
        if self._current_pause is None or self._current_pause.run != last.run:
            self._current_pause = self._new_pause(last)
        if self.context.clock.now() >= self._current_pause.until or (
            self._current_pause.free_space and self._current_pause.free_space.available()
        ):
            return ""
        return f"{last.message}; {last.hint or 'retrying after a pause'}"

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
        self.trial_id = trial_id
        self.run = run
        self.folder = context.folder.run(trial_id, run)
        self._listener = RecordListener(context, search, context.policies, trial_id=trial_id, run=run)
        self._began = context.clock.now()
        self._inspect_at = self._began
        self._sent: dict[str, float] = {}  # signal -> when
        self._starting: Future[None] | None = None
        self._attempts = 0
        self._launch_at = self._began
        self._why = ""
        self._origins: tuple[str, ...] | None = None  # checkpoints to start from: the first whole one
        self.restoring = False  # one of them

    @property
    def name(self) -> str:
        return container_name(self.context.home_id, self.context.folder.id, self.trial_id, self.run)

    @property
    def trial(self) -> TrialState:
        return self.context.state.trials[self.trial_id]

    @property
    def stop(self) -> StopVerb:
        """The strongest stop verb of trial and experiment."""
        return stronger(self.context.state.stop, self.trial.stop)

    def launch(self) -> str:
        """Create and start the container; return why it waits, or ""."""
        now = self.context.clock.now()
        slots = self.context.slots
        if slots.due(self.trial_id, now) if slots.waits(self.trial_id) else now >= self._launch_at:
            self._why = self._launch()
            self._launch_at = now + POLL
        return self._why

    def _launch(self) -> str:
        """Adopt a container of the same name, whose controller died right after creating it."""
        found = self.context.engine.inspect(self.name)
        if found is None:
            container, why = self._create()
            if why:
                return why
            found = self.context.engine.inspect(container)
        if found is None:
            return "its container was removed right after its creation"
        gpu_ids = tuple(gpu for gpu in found.labels.get(LABEL, "").split(",") if gpu)
        if found.status == "created" and not won(
            self.context.engine, found.id, gpu_ids, self.context.clock.wait
        ):
            self.context.engine.remove(found.id)
            return self.context.slots.requeue(self.trial_id, now=self.context.clock.now())
        self.context.record(
            journal.RunCreated(trial_id=self.trial_id, run=self.run, container=found.id, gpu_ids=gpu_ids)
        )
        return self._start(found.id)

    def abandon(self) -> None:
        """End a run that was stopped before it started."""
        outcome = Outcome.KILLED if self.stop == StopVerb.KILL else Outcome.PREEMPTED
        self._finish(
            journal.RunFinished(
                trial_id=self.trial_id,
                run=self.run,
                outcome=outcome.value,
                asked=self.stop,
                retry=self.stop == StopVerb.PAUSE,
            )
        )

    def watch(self, container: str) -> str:
        """Poll the container; return what the run waits for or reports, or ""."""
        self._listener.poll()
        self._signal(container)
        if self.context.clock.now() < self._inspect_at and self._listener.records.exited is None:
            return matched(self._listener.run)
        self._inspect_at = self.context.clock.now() + _INSPECT
        state = self.context.engine.inspect(container)
        if state is not None and state.status == "created":
            return self._start_or_abandon(container)
        if state is None or state.ended:
            self._end(state)
            return ""
        return matched(self._listener.run)

    def _create(self) -> tuple[str, str]:
        """Return the container's ID, or why it cannot be created yet."""
        why = self._restored()
        if why:
            return "", why
        with self.context.slots.lock():
            gpus, why = self._free_gpus()
            if why:
                return "", why
            request = run_request(self.context, self.trial, self.run)
            request = replace(request, gpus=gpus, cpu_slots=self.context.cpu_slots())
            info, spec = plan_run(self.context.config, request, self.context.place())
            self.context.folder.prepare_run(info)
            self.context.record(
                journal.RunIntended(trial_id=self.trial_id, run=self.run, segment=self.trial.segment)
            )
            try:
                return self.context.engine.create(spec), ""
            except EngineError as error:
                return "", self._start_failed(error)

    def _restored(self) -> str:
        """Restore a checkpoint to start from to this host; return what that waits for, or ""."""
        if self._origins is None:
            request = run_request(self.context, self.trial, self.run)
            self._origins = request.checkpoints or request.source
        why = self.context.restore_files(self._origins)
        self.restoring = bool(why)
        return why

    def _free_gpus(self) -> tuple[tuple[Gpu, ...], str]:
        """Return the GPUs of the run, or what it waits for; a CPU slot has no name."""
        context = self.context
        return context.slots.ask(
            self._slot_request(), self.trial_id, context.inventory, now=context.clock.now()
        )

    def _slot_request(self) -> SlotRequest:
        """Return the slot request, with the priority and weight as last set."""
        context = self.context
        config = with_attributes(context.config, read_attributes(context.folder.path))
        return slot_request(config, context.state.header, context.home_id)

    def _start_or_abandon(self, container: str) -> str:
        if self.stop and self._starting is None:
            self.abandon()
            return ""
        return self._start(container)

    def _start(self, container: str) -> str:
        try:
            starting = self._starting or self.context.engine_pool.start(container)
            self._starting = None if starting.done() else starting
            if starting.done():
                starting.result()
        except EngineError as error:
            return self._start_failed(error)
        return ""

    def _start_failed(self, error: EngineError) -> str:
        """Handle a failed start: return why the run waits, or end it after too many attempts."""
        self.context.ask_engine()  # raises if the engine is unavailable, which is not counted
        if not self.context.image_exists():
            image = self.context.state.header.image[:19]
            return f"the image {image} was removed: run `detbuild build`, then the trial continues"
        self._attempts += 1
        if isinstance(error, DiskFullError) or self._attempts < _ATTEMPTS:
            raise error
        self._finish(
            journal.RunFinished(
                trial_id=self.trial_id,
                run=self.run,
                outcome=Outcome.NOT_RETRYABLE.value,
                message=f"the container could not start: {error}",
                hint=error.hint,
            )
        )
        return ""

    def _signal(self, container: str) -> None:
        stop, now = self.stop, self.context.clock.now()
        overdue = now - self._sent.get("SIGTERM", now) > grace(self.context.config)
        if stop == StopVerb.KILL or overdue:
            if now - self._sent.get("SIGKILL", -_KILL_AGAIN) >= _KILL_AGAIN:
                self._send(container, "SIGKILL")
        elif stop and "SIGTERM" not in self._sent and self._listens(now):
            self._send(container, "SIGTERM")

    def _listens(self, now: float) -> bool:
        """Whether SIGTERM has an effect: process 1 of a container ignores signals without a handler."""
        return self._listener.records.started or now - self._began > _SETTLE

    def _send(self, container: str, signal: str) -> None:
        self.context.engine.signal(container, signal)
        self._sent[signal] = self._inspect_at = self.context.clock.now()

    def _end(self, state: ContainerState | None) -> None:
        engine = self.context.ask_engine()
        self._listener.poll(over=True)
        records = self._listener.records
        left = self.context.config.max_restarts - self.trial.restarts
        asked = self.context.config.resources.memory
        limit = (state.memory if state else 0) or memory_limit(asked, engine.memory)
        evidence = Evidence(
            records=records,
            exit_code=state.exit_code if state else None,
            oom_killed=state.oom_killed if state else False,
            engine_error=state.error if state else "",
            stop=self.stop,
            memory=limit,
            memory_source=memory_source(asked, engine.memory, limit),
            tail=self._output_tail(state, records),
            before=next(reversed(failures(self.trial)), None),
        )
        finished = judge(evidence, trial_id=self.trial_id, run=self.run, restarts_left=left)
        self._finish(apply_policies(finished, self._listener.run))

    def _output_tail(self, state: ContainerState | None, records: RunRecords) -> tuple[str, ...]:
        """Return the last lines of output; from the engine if the harness never started."""
        if state is None or records.started:
            return tail(self.folder)
        return self.context.engine.output_tail(state.id, TAIL_LINES)

    def _finish(self, finished: journal.RunFinished) -> None:
        """Journal the end; from now on the container may be removed."""
        self.context.record(finished)
        self.context.containers_removed = False
        self.context.slots.freed()


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
