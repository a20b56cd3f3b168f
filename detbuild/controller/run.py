"""Drives one run of a trial: its container is created once, started once, watched, judged and removed."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from detbuild.errors import DiskFullError, EngineError
from detbuild.launch.failure import Evidence, Outcome, judge
from detbuild.launch.gpus import LABEL, Gpu, choose, free, held
from detbuild.launch.plan import RunRequest, container_name, grace, plan_run
from detbuild.store import journal
from detbuild.store.output import TAIL_LINES, tail
from detbuild.store.progress import Goal, trial_progress
from detbuild.store.reader import RecordFile
from detbuild.store.runs import RunRecords, extended
from detbuild.store.state import TrialState, run_records

if TYPE_CHECKING:
    from detbuild.controller.world import World
    from detbuild.engine.protocol import ContainerState

_LOOK = 1.0  # seconds between two questions to the engine about a container that runs
_LOOK_FOR_GPUS = 2.0  # seconds between two tries of a run that waits: any number of experiments may
_REFUSALS = 3  # how often the engine may refuse a container before that is taken for its last word
_SETTLE = 10.0  # seconds after which SIGTERM is sent to a run that has not said that it listens
_AGAIN = 5.0  # seconds after which a SIGKILL without effect is sent again


class RunDriver:
    """What it keeps in memory may be lost at any moment: it only spares looks at files and engine."""

    def __init__(self, world: World, trial_id: int, run: int) -> None:
        self.world = world
        self.trial_id = trial_id
        self.run = run
        self.folder = world.folder.run(trial_id, run)
        self._file = RecordFile(self.folder.events, self.folder.name)
        self._records = RunRecords()
        self._first_look = world.clock.now()
        self._look_at = self._first_look
        self._sent: dict[str, float] = {}  # signal -> when
        self._refusals = 0
        self._launch_at = self._first_look
        self._waits_for = ""

    @property
    def name(self) -> str:
        return container_name(self.world.home_id, self.world.folder.id, self.trial_id, self.run)

    @property
    def trial(self) -> TrialState:
        return self.world.state.trials[self.trial_id]

    def launch(self) -> str:
        """Create the container and start it; say what it has to wait for, or ""."""
        now = self.world.clock.now()
        if now >= self._launch_at:
            self._waits_for = self._launch()
            self._launch_at = now + _LOOK_FOR_GPUS
        return self._waits_for

    def _launch(self) -> str:
        """A container of the name may be there already, from a controller that died right after making it."""
        found = self.world.engine.inspect(self.name)
        if found is None:
            why = self.world.bring_back(self._own_checkpoints())
            if why:
                return why
            container, why = self._create()
            if why:
                return why
            found = self.world.engine.inspect(container)
        if found is None:
            return "its container was removed at once"
        gpu_ids = tuple(gpu for gpu in found.labels.get(LABEL, "").split(",") if gpu)
        self.world.record(
            journal.RunCreated(trial_id=self.trial_id, run=self.run, container=found.id, gpu_ids=gpu_ids)
        )
        return self._start(found.id)

    def abandon(self) -> None:
        """A person asked for the end before the run had begun."""
        outcome = Outcome.KILLED if self.world.state.stop == "kill" else Outcome.PREEMPTED
        self._finish(journal.RunFinished(trial_id=self.trial_id, run=self.run, outcome=outcome.value))

    def watch(self, container: str) -> str:
        """Look after the container; say what is in the way, or ""."""
        self._records = extended(self._records, self._file.new())
        self._signal(container)
        if self.world.clock.now() < self._look_at and self._records.exited is None:
            return ""
        self._look_at = self.world.clock.now() + _LOOK
        state = self.world.engine.inspect(container)
        if state is not None and state.status == "created":
            return self._start_or_abandon(container)
        if state is None or state.ended:
            self._end(state)
        return ""

    def _create(self) -> tuple[str, str]:
        """Return the container's id, or why there can be none yet."""
        with self._alone_with_gpus():
            gpus, why = self._free_gpus()
            if why:
                return "", why
            info, spec = plan_run(self.world.config, self._request(gpus), self.world.place())
            self.world.folder.prepare_run(info)
            self.world.record(journal.RunIntended(trial_id=self.trial_id, run=self.run))
            try:
                return self.world.engine.create(spec), ""
            except EngineError as error:
                return "", self._refused(error)

    def _alone_with_gpus(self) -> AbstractContextManager[None]:
        slots = self.world.config.resources.slots_per_trial
        return self.world.gpu_lock() if slots else nullcontext()

    def _free_gpus(self) -> tuple[tuple[Gpu, ...], str]:
        slots = self.world.config.resources.slots_per_trial
        if not slots:
            return (), ""
        gpus = self.world.gpus()
        taken = held(self.world.engine.find({LABEL: ""}))
        chosen = choose(gpus, taken, slots)
        if chosen is not None:
            return chosen, ""
        return (), f"waits for {slots} free GPU{'s'[: slots > 1]}: {free(gpus, taken)}"

    def _own_checkpoints(self) -> tuple[str, ...]:
        """Those that the run may start from, newest first."""
        if not self.trial.runs:
            return ()
        records = run_records(self.world.folder, self.trial)
        found = trial_progress(records, Goal(), self.world.stored).checkpoints
        return tuple(one.uuid for one in found if one.state in {"COMPLETED", "ERROR"})

    def _request(self, gpus: tuple[Gpu, ...]) -> RunRequest:
        trial, header = self.trial, self.world.state.header
        goal = Goal(header.metric, smaller_is_better=header.smaller_is_better)
        progress = trial_progress(run_records(self.world.folder, trial), goal)
        return RunRequest(
            trial_id=trial.id,
            run=self.run,
            trial_seed=trial.seed,
            hparams=trial.hparams,
            gpus=gpus,
            checkpoints=self._own_checkpoints(),
            best_validation=goal.value(progress.best) if progress.best else None,
        )

    def _start_or_abandon(self, container: str) -> str:
        if self.world.state.stop:
            self.abandon()
            return ""
        return self._start(container)

    def _start(self, container: str) -> str:
        try:
            self.world.engine.start(container)
        except EngineError as error:
            return self._refused(error)
        return ""

    def _refused(self, error: EngineError) -> str:
        """The engine said no: say why the run waits, or give it up when that was its last word."""
        self.world.ask_engine()  # raises when it is away, which is no refusal
        if not self.world.image_is_there():
            gone = self.world.state.header.image[:19]
            return f"the image {gone} is gone: `detbuild build` makes it again, then the trial goes on"
        self._refusals += 1
        if isinstance(error, DiskFullError) or self._refusals < _REFUSALS:
            raise error
        self._finish(
            journal.RunFinished(
                trial_id=self.trial_id,
                run=self.run,
                outcome=Outcome.HOPELESS.value,
                message=f"the container could not start: {error}",
                mend=error.mend,
            )
        )
        return ""

    def _signal(self, container: str) -> None:
        stop, now = self.world.state.stop, self.world.clock.now()
        overdue = now - self._sent.get("SIGTERM", now) > grace(self.world.config)
        if stop == "kill" or overdue:
            if now - self._sent.get("SIGKILL", -_AGAIN) >= _AGAIN:
                self._send(container, "SIGKILL")
        elif stop == "cancel" and "SIGTERM" not in self._sent and self._listens(now):
            self._send(container, "SIGTERM")

    def _listens(self, now: float) -> bool:
        """Process 1 of a container loses a signal for which it has set no handler yet."""
        return self._records.started or now - self._first_look > _SETTLE

    def _send(self, container: str, signal: str) -> None:
        self.world.engine.signal(container, signal)
        self._sent[signal] = self._look_at = self.world.clock.now()

    def _end(self, state: ContainerState | None) -> None:
        engine = self.world.ask_engine()
        records = extended(self._records, self._file.rest())
        left = self.world.config.max_restarts - self.trial.restarts
        evidence = Evidence(
            records=records,
            exit_code=state.exit_code if state else None,
            oom_killed=state.oom_killed if state else False,
            engine_error=state.error if state else "",
            stop=self.world.state.stop,
            memory=engine.memory,
            tail=self._last_words(state, records),
        )
        self._finish(judge(evidence, trial_id=self.trial_id, run=self.run, restarts_left=left))

    def _last_words(self, state: ContainerState | None, records: RunRecords) -> tuple[str, ...]:
        """The end of its output; where the harness did not get to keep any, what the engine has of it."""
        if state is None or records.started:
            return tail(self.folder)
        return self.world.engine.output_tail(state.id, TAIL_LINES)

    def _finish(self, finished: journal.RunFinished) -> None:
        """Write it down; from now on the container may be swept away."""
        self.world.record(finished)
        self.world.tidy = False
