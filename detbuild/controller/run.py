"""Runs one run of a trial: creates, starts and watches its container, and classifies its end."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from detbuild.controller.ears import RecordListener, apply_policies, matched
from detbuild.controller.reported import run_request
from detbuild.errors import DiskFullError, EngineError
from detbuild.launch.failure import Evidence, Outcome, judge
from detbuild.launch.gpus import LABEL, Gpu, won
from detbuild.launch.limits import memory_limit, memory_source
from detbuild.launch.plan import container_name, grace, plan_run
from detbuild.launch.restart import failures
from detbuild.launch.slots import POLL, slot_request
from detbuild.store import journal
from detbuild.store.annotations import read_attributes, with_attributes
from detbuild.store.logs import TAIL_LINES, tail
from detbuild.store.state import StopVerb, stronger

if TYPE_CHECKING:
    from concurrent.futures import Future

    from detbuild.controller.search import Search
    from detbuild.controller.world import ControllerContext
    from detbuild.engine.protocol import ContainerState
    from detbuild.launch.tickets import SlotRequest
    from detbuild.store.records import RunRecords
    from detbuild.store.state import TrialState

_INSPECT = 1.0  # seconds between two inspections of a running container
_ATTEMPTS = 3  # failed starts of a container before the run ends in error
_SETTLE = 10.0  # seconds after which SIGTERM is sent to a run that has not reported its start
_KILL_AGAIN = 5.0  # seconds after which an ineffective SIGKILL is repeated


class RunDriver:
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
