"""The PyTorch side of the training loop: batches, scheduler steps, metrics, validation, checkpoints."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from determined._contract.errors import CheckpointError
from determined._run.metric_values import LeftOut
from determined._trial.loop import SavePolicy
from determined._trial.state import TrialState, write_code
from determined.pytorch import _across, _checkpoint, _rank_state, _rng, _state
from determined.pytorch._evaluate import Evaluation
from determined.pytorch._host_copy import HostCopy
from determined.pytorch._metrics import fetch, rows, training_means
from determined.pytorch._nan import NanWatch
from determined.pytorch._preflight import preflight
from determined.pytorch._steps import Steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from determined._run.lockstep import Lockstep
    from determined._trial.loop import Metrics, Position
    from determined.pytorch._context import PyTorchTrialContext
    from determined.pytorch._metrics import ClosedWindow
    from determined.pytorch._parts import Parts


class PyTorchTrainable:
    """Implements `determined._trial.loop.Trainable`."""

    def __init__(self, parts: Parts) -> None:
        self.context, self._parts, self._hooks = parts.context, parts, parts.hooks
        self._step_start = parts.hooks.of("on_train_step_start")
        self._watched = any(map(parts.hooks.of, ("on_training_workload_end", "on_train_step_end")))
        waited_for = self._watched or bool(self._step_start)
        self._steps = Steps(parts, watched=self._watched, one_by_one=waited_for)
        self._newest: ClosedWindow | None = None  # the window that was reduced last
        self._left_out = LeftOut("train_batch")
        self._copy = HostCopy()
        self._nan, self._nan_validated = NanWatch("train_batch"), NanWatch("validation")
        self._group = parts.context.distributed.group
        self._lockstep = parts.lockstep
        self._searcher_metric = SavePolicy.configured(
            {**parts.info.config, "checkpoint_policy": "best"}
        ).metric
        self._evaluation = Evaluation(
            parts.trial,
            parts.context,
            parts.hooks,
            parts.loaders.validation,
            parts.validation_limit,
            searcher_metric=self._searcher_metric,
            tick=parts.lockstep.tick if parts.lockstep else None,
        )

    @property
    def steps_completed(self) -> int:
        return self._steps.completed

    @property
    def records_trained(self) -> int:
        return self._steps.records

    @property
    def stop_requested(self) -> bool:
        """Whether any process of the trial requested a stop."""
        asked = self.context.get_stop_requested()
        return asked if self._group.size == 1 else any(self._group.allgather(asked))

    def restore(self, directory: Path, position: Position) -> None:
        """Continue from a checkpoint."""
        state = _checkpoint.read(directory, self.context.device)
        state = _rank_state.own(directory, state, self._group, self._parts.info.trial_seed)
        _state.restore(state, self.context, self._hooks)
        self.begin(position, state.get("data"))
        _state.restore_random_states(state)

    def begin(self, position: Position, data: _rng.State | None = None) -> None:
        """Prepare the training data from a position on."""
        self._steps.begin(position.steps_completed, data)
        self.context.reducers.reset(training=True)
        for model in self.context.models:
            model.train()
        if self._lockstep:
            self._lockstep.begin(position.steps_completed)

    def close(self) -> None:
        self._steps.close()

    def train_until(self, reports: Iterator[int], should_stop: Callable[[], bool]) -> None:
        if self._step_start:
            self._hooks.call("on_train_step_start", self._step_id())
        if self._lockstep:
            with self._lockstep.watched():
                self._steps.train(reports, self._agreed(self._lockstep, should_stop))
        else:
            self._steps.train(reports, should_stop)

    def _agreed(self, lockstep: Lockstep, asked: Callable[[], bool]) -> Callable[[], bool]:
        after_batch, steps = lockstep.after_batch(asked), self._steps
        return lambda: after_batch(steps.completed)

    def reduce(self) -> list[tuple[int, Metrics]]:
        windows = self._steps.window.take()
        if self.context.device.type != "cpu":
            fetch(windows)
        return [(one.end, self._reduced(one)) for one in windows]

    def _reduced(self, window: ClosedWindow) -> Metrics:
        self._newest = window
        metrics = _across.training(training_means(window, self._left_out), self._group)
        if self.context.reducers.training:
            metrics.update(self.context.reducers.metrics(training=True))
        self._nan.check(metrics, window.columns, window.end)
        return self._counted(window.end, metrics)

    def reported(self, steps_completed: int, metrics: Metrics) -> None:
        if self._watched and self._newest is not None:
            each = rows(self._newest.columns, self._newest.batches)
            both = {"avg_metrics": dict(metrics), "batch_metrics": _across.rows(each, self._group)}
            self._hooks.call("on_training_workload_end", **both)
            self._hooks.call("on_train_step_end", self._step_id(-1), both)
        self._show("", steps_completed, metrics)
        if self.context.reducers.training:
            self.context.reducers.reset(training=True)

    def preflight(self) -> Metrics | None:
        return preflight(self._parts, self._searcher_metric)

    def evaluate(self) -> Metrics:
        with self._lockstep.watched(on=self._evaluation.by_batch) if self._lockstep else nullcontext():
            metrics = self._evaluation.run()
        self._nan_validated.check(metrics, {}, 0)
        self._show("val", self.steps_completed, metrics)
        self.context.reducers.reset(training=True)
        return self._counted(self.steps_completed, metrics)

    def prepare_saving(self) -> None:
        if self._group.size == 1:
            self._copy.allocate(_state.bulk(self.context))

    def save(
        self, directory: Path, position: Position, *, in_background: bool = False, hooks: bool = True
    ) -> Callable[[], None] | None:
        data = self._parts.loaders.state(position.steps_completed)
        if self._group.rank:
            _rank_state.write(directory, _state.capture_own(self.context, data), self._group)
            return None
        state = _state.capture(self.context, self._hooks, data, call_hooks=hooks)
        frozen, numbers = _checkpoint.frozen(state), self._numbers(position)
        if in_background and self._may_save_in_background(frozen):
            return partial(self._write, directory, self._copy.copy_of(frozen), numbers)
        self._write(directory, frozen, numbers)
        if hooks:
            self._hooks.call("on_checkpoint_end", str(directory))
            self._hooks.call("on_checkpoint_write_end", directory)
        return None

    def _may_save_in_background(self, state: Mapping[str, Any]) -> bool:
        """Whether no callback needs the files at once, there is one process, and memory suffices."""
        hooks = ("on_checkpoint_end", "on_checkpoint_write_end", "on_checkpoint_upload_end")
        watched = any(self._hooks.of(hook) for hook in hooks)
        return not watched and self.context.distributed.size == 1 and self._copy.fits(state)

    def _write(self, directory: Path, state: Mapping[str, Any], numbers: TrialState) -> None:
        _checkpoint.write(directory, state, numbers)
        write_code(
            directory,
            self._parts.info,
            self._parts.trial_class,
            trial_type="PyTorchTrial",
            is_trainer=self._parts.is_trainer,
        )

    def saved(self, uuid: str) -> None:
        self._hooks.call("on_checkpoint_upload_end", uuid=uuid)

    def metadata(self) -> Mapping[str, object]:
        return {"framework": f"torch-{torch.__version__}", "format": "pickle"}

    def _numbers(self, position: Position) -> TrialState:
        return TrialState(
            trial_id=self._parts.info.trial_id,
            steps_completed=position.steps_completed,
            epochs_completed=self.context.clock.epochs(position.steps_completed),
            validated=position.validated,
            data_seed=self._parts.data_seed,
        )

    def _step_id(self, batch: int = 0) -> int:
        """Return the step ID, as in Determined 0.12, of the batch at this offset from the current one."""
        unit = self._parts.info.config.get("scheduling_unit")
        return 1 + (self.steps_completed + batch) // (unit if isinstance(unit, int) and unit > 0 else 100)

    def _counted(self, steps: int, metrics: dict[str, object]) -> dict[str, object]:
        return {"batches": steps, "epochs": self.context.clock.epochs(steps), **metrics}

    def _show(self, kind: str, steps: int, metrics: Metrics) -> None:
        if self._group.rank == 0:
            self.context.board.add(kind, steps, metrics)


def warm_start(directory: Path, context: PyTorchTrialContext) -> None:
    """Load only the weights of another trial's checkpoint."""
    state = _checkpoint.read(directory, context.device)
    if "models_state_dict" not in state:
        raise CheckpointError(f"{directory} has no weights", hint="use a checkpoint of a PyTorchTrial")
    _state.restore_models(state, context)
