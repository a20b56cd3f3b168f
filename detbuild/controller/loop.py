"""The loop that drives one experiment: look at everything, do the next thing, wait a moment.

It may die at any moment. It starts from what the journal and the engine say, and whatever changes the world
was written down before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from detbuild.controller.keeper import Keeper
from detbuild.controller.trial import TrialDriver
from detbuild.controller.trouble import Trouble
from detbuild.errors import DiskFullError, EngineError
from detbuild.launch.plan import EXPERIMENT_LABEL, HOME_LABEL, RUN_LABEL, TRIAL_LABEL
from detbuild.search.method import CreateTrial, Observation, OneTrial
from detbuild.store import journal

if TYPE_CHECKING:
    from detbuild.controller.world import World

TICK = 0.2  # seconds between two looks; a request is answered within this time
_STRENGTH = {"": 0, "cancel": 1, "kill": 2}


class Controller:
    """Drives the experiment of one folder; the caller holds its lease."""

    def __init__(self, world: World, method: OneTrial) -> None:
        self.world = world
        self._method = method
        self._drivers: dict[int, TrialDriver] = {}
        self._trouble = Trouble(world.clock)
        self.keeper = Keeper(world)
        world.bring_back = self.keeper.bring_back

    @property
    def done(self) -> bool:
        """It is over, none of its containers is left, and its checkpoints are where they belong."""
        return self.world.state.over and self.world.tidy and self.keeper.done

    def run(self) -> None:
        """Drive the experiment to its end."""
        while not self.done:
            before = self.world.state
            self.step()
            if self.world.state is before:  # else the next thing may be possible at once
                self.world.clock.wait(TICK)
        self.keeper.close()

    def step(self) -> None:
        """One look at everything."""
        if not self.world.state.over:
            try:
                self._heed_requests()
                self._decide()
            except DiskFullError:
                return  # the home's disk is full: nothing can be decided until there is room
        self._sweep()
        self._keep()
        for trial in self.world.state.trials.values():
            if not trial.ended:
                self._driver(trial.id).step()

    def _heed_requests(self) -> None:
        verb = self.world.folder.requested()
        if _STRENGTH[verb] > _STRENGTH[self.world.state.stop]:
            self.world.record(journal.StopRequested(verb=verb))

    def _decide(self) -> None:
        """Ask the search method what comes next."""
        if self.world.state.stop and all(trial.ended for trial in self.world.state.trials.values()):
            self._finish()
            return
        for decision in self._method.decide(self._observations()):
            if not isinstance(decision, CreateTrial):
                self._finish()
            elif not self.world.state.stop:
                self.world.record(
                    journal.TrialCreated(
                        trial_id=decision.trial_id, seed=decision.seed, hparams=decision.hparams
                    )
                )

    def _observations(self) -> tuple[Observation, ...]:
        return tuple(Observation(trial.id, trial.ended) for trial in self.world.state.trials.values())

    def _keep(self) -> None:
        try:
            self.keeper.step()
        except DiskFullError:
            return  # no room for a fact; the same is done again

    def _finish(self) -> None:
        """One completed trial makes the experiment a success."""
        if self.keeper.before_end(self.world.home):
            return  # not before the checkpoints are where they belong
        trials = tuple(self.world.state.trials.values())
        for name in ("COMPLETED", "ERROR", "CANCELED"):
            ended = [trial for trial in trials if trial.state == name]
            if ended:
                self.world.record(journal.ExperimentFinished(state=name, why=ended[0].why))
                return
        self.world.record(journal.ExperimentFinished(state="CANCELED", why="stopped before it began"))

    def _sweep(self) -> None:
        """Remove the containers of runs that are over, also those that an earlier controller left."""
        if self.world.tidy or self._trouble.pausing:
            return
        labels = {HOME_LABEL: self.world.home_id, EXPERIMENT_LABEL: str(self.world.folder.id)}
        going = {
            (str(trial.id), str(trial.open_run.run))
            for trial in self.world.state.trials.values()
            if trial.open_run is not None
        }
        try:
            for container in self.world.engine.find(labels):
                if (container.labels.get(TRIAL_LABEL, ""), container.labels.get(RUN_LABEL, "")) not in going:
                    self.world.engine.remove(container.id)
        except EngineError:
            self._trouble.met()
        else:
            self._trouble.gone()
            self.world.tidy = True

    def _driver(self, trial_id: int) -> TrialDriver:
        if trial_id not in self._drivers:
            self._drivers[trial_id] = TrialDriver(self.world, trial_id)
        return self._drivers[trial_id]
