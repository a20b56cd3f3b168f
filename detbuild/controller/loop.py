"""The control loop of one experiment: poll everything, do the next step, sleep.

It may die at any moment: it restarts from the journal and the engine, and every effect is journaled first.
The cost of a poll depends on the number of running trials, not of all trials.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from detbuild.controller.conclusion import conclusion
from detbuild.controller.heed import apply_requests
from detbuild.controller.keeper import CheckpointManager
from detbuild.controller.search import Search
from detbuild.controller.trial import TrialDriver
from detbuild.controller.trouble import Backoff
from detbuild.errors import EngineError
from detbuild.launch.plan import EXPERIMENT_LABEL, HOME_LABEL, RUN_LABEL, TRIAL_LABEL
from detbuild.store import journal
from detbuild.store.state import StopVerb

if TYPE_CHECKING:
    from detbuild.controller.world import ControllerContext
    from detbuild.search.method import SearchMethod

TICK = 0.2  # seconds between two polls, and until a request is applied
_AT_ONCE = 32  # trials to step in one poll, in addition to running ones


class Controller:
    """The controller of one experiment; the caller holds its lease.

    Args:
        context: The experiment and its host.
        method: The search method, without any events yet.

    Raises:
        SearchError: The search decides differently from the journal.
    """

    def __init__(self, context: ControllerContext, method: SearchMethod) -> None:
        self.context = context
        self._search = Search(context, method, context.config)
        self._drivers: dict[int, TrialDriver] = {}
        self._backoff = Backoff(context.clock)
        for trial in tuple(context.state.trials.values()):
            if trial.ended and trial.released:
                context.state.forget(trial.id)
        self.manager = CheckpointManager(context, context.config, context.clock)
        context.restore_files = self.manager.restore_files

    @property
    def done(self) -> bool:
        """Whether it has ended or is paused, and no container, upload or deletion is left."""
        state = self.context.state
        return state.idle and self.context.containers_removed and (state.paused or self.manager.done)

    def run(self) -> None:
        """Run the experiment to its end, or until it is paused."""
        while not self.done:
            before = self.context.state.entries
            self.step()
            if self.context.state.entries == before:  # else the next step may be possible at once
                self.context.clock.wait(TICK)
        self.manager.close()

    def step(self) -> None:
        """Poll everything once.

        Raises:
            EngineError: The experiment's folder was removed.
        """
        if not self.context.folder.exists:
            raise EngineError(f"{self.context.folder.path} was removed while the experiment ran")
        if not self.context.state.over:
            try:
                apply_requests(self.context)
                self._search.step()
                self._conclude()
            except EngineError:
                return  # nothing is decided until the home's disk is writable again
        self._sweep()
        self._step_checkpoints()
        self._step_trials()

    def _step_checkpoints(self) -> None:
        try:
            self.manager.step()
        except EngineError:
            return  # a fact could not be journaled; the next step retries

    def _step_trials(self) -> None:
        """Step all running trials, and the first of those that are ready."""
        state = self.context.state
        for trial_id in tuple(state.running):
            self._step_trial(trial_id)
        if state.stop == StopVerb.PAUSE:
            return
        for trial_id in tuple(islice(state.ready, _AT_ONCE)):
            driver = self._step_trial(trial_id)
            if driver.blocked:
                return
            if driver.idle and trial_id in state.ready:
                state.ready.move_to_end(trial_id)

    def _step_trial(self, trial_id: int) -> TrialDriver:
        driver = self._drivers.get(trial_id)
        if driver is None:
            driver = self._drivers[trial_id] = TrialDriver(self.context, self._search, trial_id)
        driver.step()
        if driver.trial.ended:
            del self._drivers[trial_id]
        return driver

    def _conclude(self) -> None:
        """Journal that the experiment has ended or is paused, once it is."""
        state = self.context.state
        if state.running or (state.ready and state.stop != StopVerb.PAUSE):
            return
        if state.stop == StopVerb.PAUSE:
            if self.context.containers_removed and not state.paused:
                self.context.record(journal.Paused())
        elif state.living == 0 and (state.finishing or state.ending):
            if not self.manager.before_end(
                self.context.home, hurry=state.stop == StopVerb.KILL
            ):  # all uploads and deletions are done
                self.context.record(conclusion(state))
        elif not state.ending:
            self._search.stalled()

    def _sweep(self) -> None:
        """Remove the containers of ended runs, including those of an earlier controller."""
        if self.context.containers_removed or self._backoff.active:
            return
        state = self.context.state
        labels = {HOME_LABEL: self.context.home_id, EXPERIMENT_LABEL: str(self.context.folder.id)}
        open_runs = [(id_, state.trials[id_].open_run) for id_ in state.running]
        going = {(str(id_), str(run.run)) for id_, run in open_runs if run is not None}
        try:
            removals = [
                self.context.engine_pool.remove(container.id)
                for container in self.context.engine.find(labels)
                if (container.labels.get(TRIAL_LABEL, ""), container.labels.get(RUN_LABEL, "")) not in going
            ]
            for removal in removals:
                removal.result()
        except EngineError:
            self._backoff.failed()
        else:
            self._backoff.reset()
            self.context.containers_removed = True
