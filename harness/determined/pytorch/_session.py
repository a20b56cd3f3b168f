"""Build the parts of a trial, restore it and train it."""

from __future__ import annotations

from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from determined._contract.records import ExitReason, Stage
from determined._run.launched import launch_directory
from determined._run.lockstep import Lockstep
from determined._trial.loop import Loop, Position
from determined._trial.schedule import Units
from determined.pytorch import _rank_state
from determined.pytorch._dialect import open_trial
from determined.pytorch._loaders import build_loaders
from determined.pytorch._parts import Parts
from determined.pytorch._trainable import PyTorchTrainable, warm_start

if TYPE_CHECKING:
    from determined._run.run import Run
    from determined._trial.state import Plan, Source
    from determined.pytorch._callbacks import Hooks
    from determined.pytorch._context import PyTorchTrialContext
    from determined.pytorch._trial import PyTorchTrial


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """A new trial object and everything needed to train it."""

    trial: PyTorchTrial
    context: PyTorchTrialContext
    run: Run
    plan: Plan
    source: Source

    def train(self) -> ExitReason:
        """Train to the end of the plan, or until a stop is requested."""
        trial, hooks = open_trial(self.trial, self.context)
        try:
            _rank_state.scatter_seeds(self.run.group, self.run.info.trial_seed)
            hooks.call("on_trial_startup", self.source.position.steps_completed, self.source.uuid)
            trainable = self.restored(trial, hooks)
            hooks.call("on_training_start")
            schedule = self.plan.schedule(self._units())
            with closing(trainable), self.context.profiler or nullcontext():
                plan, position = self.plan, self.source.position
                return Loop(
                    trainable, self.run, schedule, plan.policy, position, preflight=plan.preflight
                ).train()
        finally:
            hooks.call("on_trial_shutdown")
            self.context.board.close()

    def restored(self, trial: PyTorchTrial, hooks: Hooks) -> PyTorchTrainable:
        """Build the loaders of an opened trial and restore its checkpoint, if any."""
        trainable = PyTorchTrainable(self._parts(trial, hooks))
        if self.source.directory is None:
            trainable.begin(Position())
            return trainable
        self.run.enter(Stage.RESTORE)
        if self.source.numbers is None:
            warm_start(self.source.directory, self.context)
            trainable.begin(Position())
        else:
            trainable.restore(self.source.directory, self.source.position)
        return trainable

    def _parts(self, trial: PyTorchTrial, hooks: Hooks) -> Parts:
        seed = self.source.numbers.data_seed if self.source.numbers else self.plan.seed
        group = self.context.distributed.group
        return Parts(
            trial=trial,
            trial_class=type(self.trial),
            context=self.context,
            hooks=hooks,
            loaders=build_loaders(trial, self.context, seed),
            info=self.run.info,
            data_seed=seed,
            is_trainer=self.plan.is_trainer,
            validation_limit=1 if self.plan.test_mode else None,
            lockstep=Lockstep(group, launch_directory()) if group.size > 1 else None,
        )

    def _units(self) -> Units:
        return Units(self.context.clock.epoch_length, self.context.batch_size)
