"""Drives one trial from one run to the next until it has ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from detbuild.controller.room import Room
from detbuild.controller.run import RunDriver
from detbuild.controller.trouble import Trouble
from detbuild.errors import EngineError
from detbuild.launch.failure import Outcome
from detbuild.launch.restart import End, Launch, ReportSegment, Wait, next_step, pause
from detbuild.store import journal
from detbuild.store.state import run_records
from detbuild.store.states import stronger
from detbuild.store.storage import checkpoint_storage

if TYPE_CHECKING:
    from detbuild.controller.search import Search
    from detbuild.controller.world import World
    from detbuild.store.states import TrialState


@dataclass(frozen=True, slots=True)
class _Break:
    """The pause after a run."""

    run: int
    until: float  # on the controller's clock
    room: Room | None  # ends early when there is room


class TrialDriver:
    """Nothing that must survive a crash is kept here: the journal says where to go on.

    `blocked`: what the trial waits for, the trials after it would wait for too. `resting`: it waits for
    something of its own.
    """

    def __init__(self, world: World, search: Search, trial_id: int) -> None:
        self.world = world
        self.search = search
        self.trial_id = trial_id
        self.blocked = self.resting = False
        self._driver: RunDriver | None = None
        self._trouble = Trouble(world.clock)
        self._break: _Break | None = None

    @property
    def trial(self) -> TrialState:
        return self.world.state.trials[self.trial_id]

    def step(self) -> None:
        """Do the next thing; while the infrastructure is in the way, say so and try again later."""
        self.blocked = self._trouble.pausing
        if self.blocked:
            return
        try:
            why = self._next()
        except EngineError as error:
            why = f"{error}; {error.hint}" if error.hint else str(error)
            self._trouble.met()
            self.blocked = True
        else:
            self._trouble.gone()
        self._say(why)

    def _say(self, why: str) -> None:
        """Let everybody see what the trial waits for."""
        if self.trial.ended or self.trial.state == "WAITING" or self.trial.why == why:
            return
        try:
            self.world.record(journal.Waiting(trial_id=self.trial_id, why=why))
        except EngineError:
            self._trouble.met()  # not even that can be written; it is said when it can

    def _next(self) -> str:
        """Return what the trial has to wait for, or ""."""
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
            self._driver = RunDriver(self.world, self.search, self.trial_id, run)
        return self._driver

    def _between_runs(self) -> str:
        trial, state = self.trial, self.world.state
        self.resting = False
        if state.stop == "pause":
            return ""
        step = next_step(
            trial,
            stop=stronger(state.stop, trial.stop),
            needs_every_validation=self.search.needs_every_validation,
            max_restarts=self.world.config.max_restarts,
        )
        match step:
            case End(state=name, why=why):
                self.world.record(journal.TrialFinished(trial_id=trial.id, state=name, why=why))
            case ReportSegment():
                self.search.segment_done(trial.id)
            case Launch(after=failure):
                why = self._pause(failure)
                self.resting = bool(why)
                return why or self._launch(self._driver_of(len(trial.runs)))
            case Wait():
                self.resting = True
        return ""

    def _launch(self, driver: RunDriver) -> str:
        why = driver.launch()
        self.resting = driver.fetching
        self.blocked = bool(why) and not driver.fetching
        return why

    def _pause(self, last: journal.RunFinished | None) -> str:
        """Return why the next run has to wait, or "" when it may start now."""
        if last is None:
            return ""
        if self._break is None or self._break.run != last.run:
            self._break = self._take_break(last)
        if self.world.clock.now() >= self._break.until or (self._break.room and self._break.room.made()):
            return ""
        return f"{last.message}; {last.hint or 'goes on after a pause'}"

    def _take_break(self, last: journal.RunFinished) -> _Break:
        finished = [run.finished for run in self.trial.runs if run.finished]
        until = self.world.clock.now() + pause(finished)
        if last.outcome != Outcome.DISK_FULL.value:
            return _Break(last.run, until, None)
        storage = checkpoint_storage(self.world.config, self.world.folder)
        newest = run_records(self.world.folder, self.trial)[-1].checkpoints[-1:]
        needed = sum(newest[0].resources.values()) if newest else 0
        place = storage.on_host or self.world.folder.checkpoints
        return _Break(last.run, until, Room(place, needed=needed))
