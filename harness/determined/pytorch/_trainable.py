"""The PyTorch side of the training loop, from building the parts of a trial to its last checkpoint.

The overhead of the innermost loop (`Steps`) is paid in every batch: between two torch ops the processor's
caches are cold, and a line of Python costs several times more than in a loop of its own. So everything
constant during training is computed once, and reports in quick succession are batched: their metrics are
kept and reported together a moment later.
"""

from __future__ import annotations

from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, islice
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch

from determined._contract.errors import CheckpointError, InvalidTrialError
from determined._contract.records import ExitReason, Stage
from determined._run.launched import launch_directory
from determined._run.lockstep import Lockstep
from determined._run.metric_values import LeftOut
from determined._run.outcome import defined_at
from determined._trial.loop import Loop, Position, SavePolicy
from determined._trial.schedule import Units
from determined._trial.state import TrialState, write_code
from determined.pytorch import _checkpoint, _metrics
from determined.pytorch._checkpoint import HostCopy
from determined.pytorch._context import Pace
from determined.pytorch._device import averaging, to_cpu, to_cpu_without_gpu, to_device
from determined.pytorch._evaluate import Evaluation, Parts, preflight
from determined.pytorch._loaders import build_loaders
from determined.pytorch._metrics import NanWatch, Window, fetch, rows, training_means
from determined.pytorch._trial import open_trial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from determined._run.run import Run
    from determined._trial.loop import Metrics
    from determined._trial.state import Plan, Source
    from determined.pytorch._callbacks import Hooks
    from determined.pytorch._context import PyTorchTrialContext
    from determined.pytorch._device import State
    from determined.pytorch._metrics import ClosedWindow
    from determined.pytorch._trial import PyTorchTrial

_MAX_REPORT_DELAY = 0.05  # seconds that a report may be deferred
_MEASURE_EVERY = 100  # batches between two measurements of the batch length


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
        state = _checkpoint.state_of_rank(directory, state, self._group, self._parts.info.trial_seed)
        _checkpoint.restore(state, self.context, self._hooks)
        self.begin(position, state.get("data"))
        _checkpoint.restore_random_states(state)

    def begin(self, position: Position, data: State | None = None) -> None:
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
        metrics = _metrics.mean_over_processes(training_means(window, self._left_out), self._group)
        if self.context.reducers.training:
            metrics.update(self.context.reducers.metrics(training=True))
        self._nan.check(metrics, window.columns, window.end)
        return self._counted(window.end, metrics)

    def reported(self, steps_completed: int, metrics: Metrics) -> None:
        if self._watched and self._newest is not None:
            each = rows(self._newest.columns, self._newest.batches)
            both = {
                "avg_metrics": dict(metrics),
                "batch_metrics": _metrics.rows_over_processes(each, self._group),
            }
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
            self._copy.allocate(_checkpoint.bulk(self.context))

    def save(
        self, directory: Path, position: Position, *, in_background: bool = False, hooks: bool = True
    ) -> Callable[[], None] | None:
        data = self._parts.loaders.state(position.steps_completed)
        if self._group.rank:
            _checkpoint.write_rank(directory, _checkpoint.capture_own(self.context, data), self._group)
            return None
        state = _checkpoint.capture(self.context, self._hooks, data, call_hooks=hooks)
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
    _checkpoint.restore_models(state, context)


class Steps:
    """Trains the batches of one trial.

    Args:
        parts: the trial.
        watched: a callback receives the metrics of each batch.
        one_by_one: reports must not be deferred.

    Attributes:
        completed: batches, over the life of the trial.
        records: trained since this run began, by all processes.
        window: the metrics, one window for each report.
    """

    def __init__(self, parts: Parts, *, watched: bool, one_by_one: bool) -> None:
        self.completed = self.records = 0
        read_numbers = parts.context.device.type == "cpu" and not watched
        place = defined_at(parts.trial.train_batch)
        self.window = Window("train_batch", read_numbers=read_numbers, place=place)
        self._parts, self._context, self._hooks = parts, parts.context, parts.hooks
        self._clock = parts.context.clock
        self._clock.epoch_length = parts.loaders.training.epoch_length
        self._shared = parts.context.distributed.size > 1
        self._one_by_one = one_by_one or self._shared
        self._batches: Iterator[Any] = iter(())
        self._epoch, self._epoch_idx = range(0), 0  # the batches of the current epoch
        self._length, self._measure_at = 0, 0
        self._reports: Iterator[int] = iter(())
        self._report = 0  # the batch after which the next report is due; 0: none
        self._left = -inf  # when the loop last returned, for reports

    def begin(self, completed: int, data: State | None) -> None:
        """Prepare the training data from a batch on."""
        self.completed = self._measure_at = completed
        self._epoch = range(0)
        self._batches = self._parts.loaders.begin(completed, data)

    def close(self) -> None:
        """Stop loader workers now and in this thread, not in a garbage collection."""
        self._batches = iter(())

    def train(self, reports: Iterator[int], should_stop: Callable[[], bool]) -> None:
        """Train to the next of `reports`, or past it if it may be deferred: see `Trainable` of the loop.

        Raises:
            InvalidTrialError: the training data ended.
        """
        self._reports, self._report = reports, next(reports)
        continues = True
        while continues:
            done = self.completed
            if done not in self._epoch:
                self._epoch, self._epoch_idx = self._clock.epoch_of(done), self._clock.epochs(done)
            batches = self._begin_epoch() if done == self._epoch.start else self._batches
            continues = self._train_in_epoch(batches, should_stop)
            if self.completed == done:
                raise InvalidTrialError(
                    f"the training data ended after {done} batches, in the middle of an epoch",
                    hint="make the sampler yield the number of batches that its length states",
                )
            if self.completed == self._epoch.stop:
                _call(self._hooks.epoch_end, self._epoch_idx)
        self._left = perf_counter()

    def _begin_epoch(self) -> Iterator[Any]:
        """Call the epoch callbacks as in Determined: after the first batch is read, before it is trained."""
        first = list(islice(self._batches, 1))
        self._clock.batch_idx = self.completed
        _call(self._hooks.epoch_start, self._epoch_idx)
        return chain(first, self._batches)

    def _train_in_epoch(self, batches: Iterator[Any], should_stop: Callable[[], bool]) -> bool:
        """Train to the end of the epoch (the innermost loop); return False to leave training."""
        clock, add, train_batch = self._clock, self.window.add, self._parts.trial.train_batch
        prepare, after = self._around_batch
        first, epoch, continues = self.completed, self._epoch_idx, True
        measured, last = max(first, self._measure_at), self._report - 1
        if self._shared:
            self._average_at(first)
        for index, batch in zip(range(first, self._epoch.stop), batches, strict=False):
            clock.batch_idx = index
            if index == measured:
                self._measure(batch)
            add(train_batch(batch=prepare(batch), epoch_idx=epoch, batch_idx=index))
            for do in after:
                do(index)
            self.completed = index + 1
            stopped = should_stop()
            if index == last or stopped:
                continues = self._defer_report() and not stopped
                if not continues:
                    break
                last = self._report - 1
        self.records += (self.completed - first) * self._length
        return continues

    def _defer_report(self) -> bool:
        """Close the window; return False if its report is due at once or is the last one."""
        self.window.close(self.completed)
        if (
            self._one_by_one
            or perf_counter() - self._left >= _MAX_REPORT_DELAY
            or self._context.reducers.training
            or self._context.get_stop_requested()
        ):
            return False
        self._report = next(self._reports, 0)
        return self._report > 0

    def _measure(self, batch: Any) -> None:  # noqa: ANN401  (any batch)
        """Measure the records per batch over all processes; 0 if unknown."""
        self._measure_at = self.completed + _MEASURE_EVERY
        try:
            length = self._parts.trial.get_batch_length(batch)
        except InvalidTrialError:
            length = 0
        if not isinstance(length, int):
            raise InvalidTrialError(
                f"get_batch_length returned {length!r}", hint="return the number of records in the batch"
            )
        self._length = length * self._context.distributed.size

    @cached_property
    def _around_batch(self) -> tuple[Callable[[Any], Any], tuple[Callable[[int], object], ...]]:
        """The functions to run before and after each batch; resolved when training begins."""
        return self._preparation(), self._after_batch()

    def _preparation(self) -> Callable[[Any], Any]:
        if not self._context.experimental.auto_to_device:
            return lambda batch: batch
        device = self._context.device
        if device.type != "cpu":
            return partial(to_device, device=device)
        return to_cpu if torch.cuda.is_available() else to_cpu_without_gpu

    def _after_batch(self) -> tuple[Callable[[int], object], ...]:
        """Return the functions to run after each batch; none for most trials."""
        context = self._context
        after: list[Callable[[int], object]] = []
        if context.gradients.automatic:
            after.append(lambda _: context.gradients.end_batch())
        if context.lr_schedulers:
            pace = Pace(self._clock.epoch_length, context.gradients.aggregation.frequency)
            after.append(partial(self._step_schedulers, pace))
        if context.profiler is not None:
            profiler = context.profiler
            after.append(lambda _: profiler.step())
        if self._shared and context.gradients.aggregation.frequency > 1:
            after.append(lambda index: self._average_at(index + 1))
        return tuple(after)

    def _average_at(self, index: int) -> None:
        """Average gradients over processes only in the last batch of an aggregation."""
        averaging(self._context.models, on=(index + 1) % self._context.gradients.aggregation.frequency == 0)

    def _step_schedulers(self, pace: Pace, index: int) -> None:
        for one in self._context.lr_schedulers:
            for _ in range(pace.steps(one, index)):
                one.scheduler.step()


def _call(hooks: tuple[Callable[[int], object], ...], epoch: int) -> None:
    for hook in hooks:
        hook(epoch)


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
            _checkpoint.scatter_seeds(self.run.group, self.run.info.trial_seed)
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
