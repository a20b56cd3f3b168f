"""PyTorch's part of the training loop: batches, scheduler steps, metrics, validation, checkpoints."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch

from determined._errors import CheckpointError, InvalidTrialError
from determined._trial_state import TrialState, write_code
from determined.pytorch import _across, _checkpoint, _rank_state, _rng, _state
from determined.pytorch._device import to_cpu, to_device
from determined.pytorch._distributed import averaging
from determined.pytorch._evaluate import Evaluation
from determined.pytorch._host_copy import HostCopy
from determined.pytorch._lr_scheduler import Pace
from determined.pytorch._metrics import Window, plain, training_means
from determined.pytorch._nan import NanWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from determined._lockstep import Lockstep
    from determined._loop import Metrics, Position
    from determined._run_info import RunInfo
    from determined.pytorch._callbacks import Hooks
    from determined.pytorch._context import PyTorchTrialContext
    from determined.pytorch._loaders import Loaders
    from determined.pytorch._trial import PyTorchTrial


_MEASURED = 100  # batches that one batch's length is taken for


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """A trial that is built."""

    trial: PyTorchTrial
    trial_class: type  # as the user wrote it
    context: PyTorchTrialContext
    hooks: Hooks
    loaders: Loaders
    info: RunInfo
    data_seed: int
    is_trainer: bool = False
    validation_limit: int | None = None  # batches
    lockstep: Lockstep | None = None  # with other processes


class PyTorchTrainable:
    """Satisfies `determined._loop.Trainable`."""

    def __init__(self, parts: Parts) -> None:
        self.steps_completed = self.records_trained = 0
        self.context, self._parts, self._hooks = parts.context, parts, parts.hooks
        self._step_start = parts.hooks.of("on_train_step_start")
        self._watched = any(map(parts.hooks.of, ("on_training_workload_end", "on_train_step_end")))
        self._window = Window("train_batch", keep_tensors=self._watched)
        self._clock = parts.context.clock
        self._clock.epoch_length = parts.loaders.training.epoch_length
        self._epoch, self._epoch_idx = range(0), 0  # the batches of the epoch in training
        self._length, self._measure_at = 0, 0
        self._batches: Iterator[Any] = iter(())
        self._copy = HostCopy()
        self._nan, self._nan_validated = NanWatch("train_batch"), NanWatch("validation")
        self._group = parts.context.distributed.group
        self._lockstep = parts.lockstep
        self._evaluation = Evaluation(
            parts.trial,
            parts.context,
            parts.hooks,
            parts.loaders.validation,
            parts.validation_limit,
            tick=parts.lockstep.tick if parts.lockstep else None,
        )

    @property
    def stop_requested(self) -> bool:
        """Whether the trial asked to stop, in any process."""
        asked = self.context.get_stop_requested()
        return asked if self._group.size == 1 else any(self._group.allgather(asked))

    def restore(self, directory: Path, position: Position) -> None:
        """Go on from a checkpoint."""
        state = _checkpoint.read(directory, self.context.device)
        state = _rank_state.own(directory, state, self._group, self._parts.info.trial_seed)
        _state.put(state, self.context, self._hooks)
        self.begin(position, state.get("data"))
        _state.put_random_states(state)

    def begin(self, position: Position, data: _rng.State | None = None) -> None:
        """Make the training data ready from a position on."""
        self.steps_completed = self._measure_at = position.steps_completed
        self._epoch = range(0)
        self._batches = self._parts.loaders.training.begin(position.steps_completed, data)
        self.context.reducers.reset(training=True)
        for model in self.context.models:
            model.train()
        if self._lockstep:
            self._lockstep.begin(position.steps_completed)

    def close(self) -> None:
        """Let loader workers go now, and in this thread, not whenever garbage is collected."""
        self._batches = iter(())

    def train_until(self, batch: int, should_stop: Callable[[], bool]) -> None:
        if self._step_start:
            self._hooks.call("on_train_step_start", self._step_id())
        if self._lockstep:
            with self._lockstep.watched():
                self._train_until(batch, self._agreed(self._lockstep, should_stop))
        else:
            self._train_until(batch, should_stop)

    def _agreed(self, lockstep: Lockstep, asked: Callable[[], bool]) -> Callable[[], bool]:
        after_batch = lockstep.after_batch(asked)
        return lambda: after_batch(self.steps_completed)

    def _train_until(self, batch: int, should_stop: Callable[[], bool]) -> None:
        stopped = False
        while self.steps_completed < batch and not stopped:
            done = self.steps_completed
            if done not in self._epoch:
                self._epoch, self._epoch_idx = self._clock.epoch_of(done), self._clock.epochs(done)
            if done == self._epoch.start:
                self._call(self._hooks.epoch_start, self._epoch_idx)
            stopped = self._train_batches(min(batch, self._epoch.stop), should_stop)
            if self.steps_completed == done:
                raise InvalidTrialError(
                    f"the training data ended after {done} batches, in the middle of an epoch",
                    mend="make the sampler yield as many batches as its length says",
                )
            if self.steps_completed == self._epoch.stop:
                self._call(self._hooks.epoch_end, self._epoch_idx)

    def _train_batches(self, end: int, should_stop: Callable[[], bool]) -> bool:
        """The innermost loop: whatever is done here is paid for in every batch."""
        clock, add, train_batch = self._clock, self._window.add, self._parts.trial.train_batch
        prepare, after = self._around_batch
        if self._group.size > 1:
            self._average_at(self.steps_completed)
        first, epoch, stopped = self.steps_completed, self._epoch_idx, False
        measured = max(first, self._measure_at)
        for index, batch in zip(range(first, end), self._batches, strict=False):
            clock.batch_idx = index
            if index == measured:
                self._measure(batch)
            add(train_batch(batch=prepare(batch), epoch_idx=epoch, batch_idx=index))
            for do in after:
                do(index)
            self.steps_completed = index + 1
            if should_stop():
                stopped = True
                break
        self.records_trained += (self.steps_completed - first) * self._length
        return stopped

    def _measure(self, batch: Any) -> None:  # noqa: ANN401  (whatever the loader gave)
        """Take a batch's length, over all processes, for that of the next; 0 where it cannot be told."""
        self._measure_at = self.steps_completed + _MEASURED
        try:
            length = self._parts.trial.get_batch_length(batch)
        except InvalidTrialError:
            length = 0
        if not isinstance(length, int):
            raise InvalidTrialError(
                f"get_batch_length returned {length!r}", mend="return the number of records in the batch"
            )
        self._length = length * self._group.size

    def reduce(self) -> Metrics:
        metrics = training_means(self._window.columns)
        if self._group.size > 1:
            metrics = _across.training(metrics, self._group)
        if self.context.reducers.training:
            found = self.context.reducers.metrics(training=True)
            metrics.update({name: plain(value, name) for name, value in found.items()})
        self._nan.look(metrics, self._window.columns, self.steps_completed)
        return self._counted(metrics)

    def reported(self, metrics: Metrics) -> None:
        if self._watched:
            both = {
                "avg_metrics": dict(metrics),
                "batch_metrics": _across.rows(self._window.rows(), self._group),
            }
            self._hooks.call("on_training_workload_end", **both)
            self._hooks.call("on_train_step_end", self._step_id(-1), both)
        self._show("", metrics)
        self._window.reset()
        if self.context.reducers.training:
            self.context.reducers.reset(training=True)

    def evaluate(self) -> Metrics:
        with self._lockstep.watched(on=self._evaluation.by_batch) if self._lockstep else nullcontext():
            metrics = self._evaluation.run()
        self._nan_validated.look(metrics, {}, 0)
        self._show("val", metrics)
        self.context.reducers.reset(training=True)
        return self._counted(metrics)

    def prepare_saving(self) -> None:
        if self._group.size == 1:
            self._copy.rehearse(_state.bulk(self.context))

    def save(self, directory: Path, position: Position, *, beside: bool) -> Callable[[], None] | None:
        if self._group.rank:
            data = self._parts.loaders.training.state()
            _rank_state.write(directory, _state.take_own(self.context, data), self._group)
            return None
        state = _state.take(self.context, self._hooks, self._parts.loaders.training.state())
        frozen, numbers = _checkpoint.frozen(state), self._numbers(position)
        if beside and self._may_write_beside(frozen):
            return partial(self._write, directory, self._copy.of(frozen), numbers)
        self._write(directory, frozen, numbers)
        self._hooks.call("on_checkpoint_end", str(directory))
        self._hooks.call("on_checkpoint_write_end", directory)
        return None

    def _may_write_beside(self, state: Mapping[str, Any]) -> bool:
        """Not when callbacks want to see the files at once, other processes take part, or memory is short."""
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
            epochs_completed=self._clock.epochs(position.steps_completed),
            validated=position.validated,
            data_seed=self._parts.data_seed,
        )

    def _step_id(self, batch: int = 0) -> int:
        """The step, as Determined 0.12 counted them, that the batch so far from here belongs to."""
        unit = self._parts.info.config.get("scheduling_unit")
        return 1 + (self.steps_completed + batch) // (unit if isinstance(unit, int) and unit > 0 else 100)

    def _counted(self, metrics: dict[str, object]) -> dict[str, object]:
        steps = self.steps_completed
        return {"batches": steps, "epochs": self._clock.epochs(steps), **metrics}

    @cached_property
    def _around_batch(self) -> tuple[Callable[[Any], Any], tuple[Callable[[int], object], ...]]:
        """What is done to each batch, and after it: known when training begins, not before callbacks."""
        return self._preparation(), self._after_batch()

    def _preparation(self) -> Callable[[Any], Any]:
        if not self.context.experimental.auto_to_device:
            return lambda batch: batch
        return to_cpu if self.context.device.type == "cpu" else partial(to_device, device=self.context.device)

    def _after_batch(self) -> tuple[Callable[[int], object], ...]:
        """What has to be done after each batch of this trial; nothing, for most."""
        context = self.context
        after: list[Callable[[int], object]] = []
        if context.gradients.automatic:
            after.append(lambda _: context.gradients.end_batch())
        if context.lr_schedulers:
            pace = Pace(self._clock.epoch_length, context.gradients.aggregation.frequency)
            after.append(partial(self._step_schedulers, pace))
        if context.profiler is not None:
            profiler = context.profiler
            after.append(lambda _: profiler.step())
        if self._group.size > 1 and context.gradients.aggregation.frequency > 1:
            after.append(lambda index: self._average_at(index + 1))
        return tuple(after)

    def _average_at(self, index: int) -> None:
        """Gradients are averaged over processes once an update: in the last batch that goes into it."""
        averaging(self.context.models, on=(index + 1) % self.context.gradients.aggregation.frequency == 0)

    def _show(self, kind: str, metrics: Metrics) -> None:
        if self._group.rank == 0:
            self.context.board.add(kind, self.steps_completed, metrics)

    def _step_schedulers(self, pace: Pace, index: int) -> None:
        for one in self.context.lr_schedulers:
            for _ in range(pace.steps(one, index)):
                one.scheduler.step()

    @staticmethod
    def _call(hooks: tuple[Callable[[int], object], ...], epoch: int) -> None:
        for hook in hooks:
            hook(epoch)


def warm_start(directory: Path, context: PyTorchTrialContext) -> None:
    """Take the weights of another trial's checkpoint, and nothing else."""
    state = _checkpoint.read(directory, context.device)
    if "models_state_dict" not in state:
        raise CheckpointError(f"{directory} holds no weights", mend="name a checkpoint of a PyTorchTrial")
    _state.put_models(state, context)
