"""The control loop of one experiment: poll everything, do the next step, sleep.

It may die at any moment: it restarts from the journal and the runtime, and every effect is journaled first.
The cost of a poll depends on the number of running trials, not of all trials. A controller runs in this
process or in a detached one.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from detbuild.controller.checkpoints import CheckpointManager
from detbuild.controller.context import ControllerContext
from detbuild.controller.lease import name_holder
from detbuild.controller.retry import Backoff, End, SystemClock, next_step
from detbuild.controller.search import Search
from detbuild.controller.state import JournaledState, apply_pending_requests, apply_requests, conclusion
from detbuild.controller.trial import Done, TrialDriver
from detbuild.errors import EngineError
from detbuild.runtime.protocol import RunKey, Waiting
from detbuild.search.registry import search_method
from detbuild.store import journal
from detbuild.store.experiment_dir import config_of, search_config_of
from detbuild.store.files import file_errors
from detbuild.store.home import Home
from detbuild.store.state import State, StopVerb, stronger

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from detbuild.controller.trial import Progress
    from detbuild.runtime.protocol import Runtime
    from detbuild.search.method import Action, SearchEvent, SearchMethod
    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.state import TrialState

_TICK = 0.2  # seconds between two polls, and until a request is applied
_AT_ONCE = 32  # trials to step in one poll, in addition to running ones


class Controller:
    """The controller of one experiment; the caller holds its lease.

    Args:
        context: The experiment and its runtime.
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
        """Whether it has ended or is paused, and no run, upload or deletion is left."""
        state = self.context.state
        return state.idle and self.context.runs_removed and (state.paused or self.manager.done)

    def run(self) -> None:
        """Run the experiment to its end, or until it is paused."""
        for _ in self.steps():
            pass

    def steps(self, poll: float = _TICK) -> Iterator[None]:
        """Run the experiment to its end, or until it is paused; yield after each step.

        Args:
            poll: Seconds between two steps that change nothing.
        """
        try:
            while not self.done:
                before = self.context.state.entries
                self.step()
                yield
                if self.context.state.entries == before:  # else the next step may be possible at once
                    self.context.clock.wait(poll)
        finally:
            self.manager.close()

    def abandon(self, why: str) -> None:
        """End the experiment without further runs; without a request it ends in an error with `why`.

        Open runs are settled first. It stays paused if that was requested.
        """
        context, state = self.context, self.context.state
        for trial_id in tuple(state.running):
            TrialDriver(context, self._search, trial_id).settle()
        if state.stop == StopVerb.PAUSE:
            context.record(journal.Paused())
            return
        for trial in tuple(state.trials.values()):
            if not trial.ended:
                context.record(_left_over(trial, stronger(state.stop, trial.stop), why))
        alone = state.trials and context.config.searcher.name == "single"
        judged = state.finishing or state.ending or alone
        end = conclusion(state) if judged else journal.ExperimentFinished(state=State.ERROR, why=why)
        while self.manager.before_end(context.home, hurry=state.stop == StopVerb.KILL):
            self.manager.step()
            context.clock.wait(_TICK)
            apply_requests(context)
        context.record(end)
        self.run()  # the deletions that are left

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
            progress = self._step_trial(trial_id)
            if isinstance(progress, Waiting):
                if progress.blocks_others:
                    return
                if trial_id in state.ready:
                    state.ready.move_to_end(trial_id)

    def _step_trial(self, trial_id: int) -> Progress:
        driver = self._drivers.get(trial_id)
        if driver is None:
            driver = self._drivers[trial_id] = TrialDriver(self.context, self._search, trial_id)
        progress = driver.step()
        if isinstance(progress, Done):
            del self._drivers[trial_id]
        return progress

    def _conclude(self) -> None:
        """Journal that the experiment has ended or is paused, once it is."""
        state = self.context.state
        if state.running or (state.ready and state.stop != StopVerb.PAUSE):
            return
        if state.stop == StopVerb.PAUSE:
            if self.context.runs_removed and not state.paused:
                self.context.record(journal.Paused())
        elif state.living == 0 and (state.finishing or state.ending):
            if not self.manager.before_end(
                self.context.home, hurry=state.stop == StopVerb.KILL
            ):  # all uploads and deletions are done
                self.context.record(conclusion(state))
        elif not state.ending:
            self._search.stalled()

    def _sweep(self) -> None:
        """Remove the runs that have ended, including those of an earlier controller."""
        if self.context.runs_removed or self._backoff.active:
            return
        context, state = self.context, self.context.state
        open_runs = [(id_, state.trials[id_].open_run) for id_ in state.running]
        home_id, number = context.home_id, context.folder.id
        keep = [RunKey(home_id, number, id_, run.run) for id_, run in open_runs if run is not None]
        try:
            context.runtime.remove(home_id, number, keep=keep)
        except EngineError:
            self._backoff.failed()
        else:
            self._backoff.reset()
            context.runs_removed = True


def _left_over(trial: TrialState, stop: StopVerb, why: str) -> journal.TrialFinished:
    """Return the end of a trial that gets no more runs."""
    step = next_step(trial, stop=stop, needs_every_validation=True, max_restarts=0)
    if isinstance(step, End):
        return journal.TrialFinished(trial_id=trial.id, state=step.state, why=step.why)
    return journal.TrialFinished(trial_id=trial.id, state=State.ERROR, why=why)


class _NoSearch:
    """Decides nothing: of an experiment that gets no more runs, whose search may not be known any more."""

    needs_every_validation = False
    progress = share = 0.0

    def decide(self, event: SearchEvent) -> Sequence[Action]:
        del event
        return ()

    def replay(self, event: SearchEvent, actions: Sequence[Action]) -> None: ...


def controller_of(folder: ExperimentFolder, runtime: Runtime, *, retries: bool = True) -> Controller:
    """Create the controller from the experiment's folder.

    The caller holds the lease. Pending requests are applied here, and may change the config.

    Args:
        folder: The experiment.
        runtime: Where its runs run.
        retries: Whether runs that have failed are retried, up to `max_restarts`.
    """
    context = _context_of(folder, runtime, retries=retries)
    context_dir = Path(context.state.header.context_dir)
    return Controller(context, search_method(search_config_of(folder), context_dir))


def abandon(folder: ExperimentFolder, runtime: Runtime, why: str) -> None:
    """End an experiment without further runs; see `Controller.abandon`. The caller holds the lease."""
    Controller(_context_of(folder, runtime, retries=False), _NoSearch()).abandon(why)


def _context_of(folder: ExperimentFolder, runtime: Runtime, *, retries: bool) -> ControllerContext:
    apply_pending_requests(JournaledState(folder=folder))
    return ControllerContext(
        folder=folder,
        runtime=runtime,
        config=config_of(folder),
        home_id=Home.open(folder.path.parent.parent).id,
        clock=SystemClock(),
        retries=retries,
    )


def first_steps(folder: ExperimentFolder, runtime: Runtime) -> None:
    """Run the experiment in this process until its first run has started, which saves loading time.

    The caller holds the lease. The next controller adopts the run, as after a crash.
    """
    controller_of(folder, runtime).step()


def start_detached(folder: ExperimentFolder, lease_descriptor: int) -> None:
    """Start the controller as a detached process, which inherits the lease.

    Args:
        folder: The experiment.
        lease_descriptor: Holds the lease; the caller closes it after this call.
    """
    with file_errors(folder.log_file), folder.files.append(folder.log_file.name) as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "detbuild.controller", str(folder.path), str(lease_descriptor)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",  # not the caller's: `python -m` would import from there
            pass_fds=(lease_descriptor,),
            start_new_session=True,
        )
    name_holder(lease_descriptor, process.pid)
    # Reap it in programs that outlive it.
    threading.Thread(target=process.wait, daemon=True).start()
