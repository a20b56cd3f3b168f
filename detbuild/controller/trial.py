"""Runs one trial, run after run, until it has ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from detbuild.controller.room import FreeSpace
from detbuild.controller.run import RunDriver
from detbuild.controller.trouble import Backoff
from detbuild.errors import EngineError
from detbuild.launch.failure import Outcome
from detbuild.launch.restart import End, Launch, ReportSegment, Wait, next_step, pause
from detbuild.store import journal
from detbuild.store.experiment_dir import checkpoint_storage
from detbuild.store.state import State, StopVerb, run_records, stronger

if TYPE_CHECKING:
    from detbuild.controller.search import Search
    from detbuild.controller.world import ControllerContext
    from detbuild.store.state import TrialState


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
        self._driver: RunDriver | None = None
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

    def _driver_of(self, run: int) -> RunDriver:
        if self._driver is None or self._driver.run != run:
            self._driver = RunDriver(self.context, self.search, self.trial_id, run)
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

    def _launch(self, driver: RunDriver) -> str:
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
