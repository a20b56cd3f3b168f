"""PyTorchTrialContext: wrapping models, optimizers and schedulers, and when they step."""

from __future__ import annotations

import enum
import functools
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import torch
from torch.amp.grad_scaler import GradScaler
from torch.optim.lr_scheduler import ReduceLROnPlateau

from determined._contract.errors import InvalidTrialError
from determined._run.processes import DistributedContext
from determined._trial.context import HparamAccess
from determined._trial.schedule import Clock
from determined.pytorch._device import parallel, to_device
from determined.pytorch._metrics import FunctionReducer, MetricReducer, Reducers, Wrapped
from determined.pytorch._tensorboard import TensorBoardWriter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.optim.lr_scheduler import LRScheduler as TorchScheduler

    from determined._contract.run_info import RunInfo
    from determined.pytorch._device import Untyped

_ClipGrads = Callable[[Iterator[torch.nn.Parameter]], object]
_ZERO_GRAD = torch.optim.Optimizer.zero_grad
_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")
_Model = TypeVar("_Model", bound=torch.nn.Module)
_Optimizer = TypeVar("_Optimizer", bound=torch.optim.Optimizer)


@dataclass(frozen=True, slots=True)
class Aggregation:
    """Gradient aggregation: one optimizer step per `frequency` batches."""

    frequency: int = 1
    average: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """The settings of a context, set before user code runs."""

    device: torch.device
    hparams: Mapping[str, object] | None = None
    config: Mapping[str, object] | None = None
    info: RunInfo | None = None  # None: the context is not part of a run
    tensorboard_dir: Path = Path("runs")
    aggregation: Aggregation = field(default_factory=Aggregation)
    initial_batch: int = 0
    move_models: bool = True  # to the device
    distributed: DistributedContext = field(default_factory=DistributedContext.alone)


class PyTorchTrialContext(HparamAccess):
    """The first argument of a trial's `__init__`; keep it as `self.context`."""

    def __init__(self, setting: Setting) -> None:
        slots = setting.distributed.size
        super().__init__(setting.hparams, setting.config, setting.info, slots=slots)
        self.device = setting.device
        self.distributed = setting.distributed
        self.models: list[torch.nn.Module] = []
        self.optimizers: list[torch.optim.Optimizer] = []
        self.lr_schedulers: list[LRScheduler] = []
        self.clock = Clock()
        self.gradients = _Gradients(setting.aggregation, self.clock, self.device)
        self.reducers = Reducers(self.distributed)
        self.board = TensorBoardWriter(setting.tensorboard_dir)
        self.experimental = Experimental(self.wrap_amp)
        self.profiler: torch.profiler.profile | None = None
        self.asked_initial_batch = False
        self.initial_batch = setting.initial_batch
        self._move_models = setting.move_models
        self._stop_requested = False

    @classmethod
    def of_config(cls, config: Mapping[str, object], hparams: Mapping[str, object]) -> PyTorchTrialContext:
        return cls(Setting(device=torch.device("cpu"), hparams=hparams, config=config))

    def wrap_model(self, model: _Model) -> _Model:
        """Move a model to the device and include it in checkpoints. Use the returned model.

        With several processes it is a DistributedDataParallel that forwards attributes to the model.
        """
        if not isinstance(model, torch.nn.Module):
            raise InvalidTrialError(
                f"wrap_model got a {type(model).__name__}, not a torch.nn.Module",
                hint="pass the model before any other wrapping",
            )
        if self._move_models:
            model = model.to(self.device)
        if self.gradients.automatic:
            self.gradients.autocast(model)
        wrapped = parallel(model, self.device) if self.distributed.size > 1 else model
        self.models.append(wrapped)
        return cast("_Model", wrapped)  # the wrapper forwards attributes to the model

    def wrap_optimizer(
        self,
        optimizer: _Optimizer,
        backward_passes_per_step: int = 1,
        fp16_compression: bool | None = None,  # noqa: ARG002, FBT001  (Determined's own signature)
        average_aggregated_gradients: bool | None = None,  # noqa: FBT001  (Determined's own signature)
    ) -> _Optimizer:
        """Include an optimizer in checkpoints and let `step_optimizer` step it."""
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise InvalidTrialError(
                f"wrap_optimizer got a {type(optimizer).__name__}, not a torch.optim.Optimizer",
                hint="create the optimizer from the wrapped model's parameters and pass it",
            )
        if backward_passes_per_step < 1:
            raise InvalidTrialError(
                f"wrap_optimizer got backward_passes_per_step={backward_passes_per_step}",
                hint="set it to 1 or more",
            )
        self.gradients.add(optimizer, average=average_aggregated_gradients)
        self.optimizers.append(optimizer)
        return optimizer

    def wrap_lr_scheduler(
        self, lr_scheduler: Untyped, step_mode: LRScheduler.StepMode, frequency: int = 1
    ) -> Untyped:
        """Include a scheduler in checkpoints and step it according to `step_mode`; return it unchanged."""
        optimizer = getattr(lr_scheduler, "optimizer", None)
        if not any(optimizer is one for one in self.optimizers):
            raise InvalidTrialError(
                "wrap_lr_scheduler got a scheduler of an optimizer that was not wrapped",
                hint="create the scheduler from the optimizer returned by context.wrap_optimizer",
            )
        self.lr_schedulers.append(LRScheduler(lr_scheduler, step_mode, frequency))
        return lr_scheduler

    def get_model(self) -> torch.nn.Module:
        """Return the only model of the trial, as in Determined 0.12."""
        return _only(self.models, "model")

    def get_optimizer(self) -> torch.optim.Optimizer:
        return _only(self.optimizers, "optimizer")

    def get_lr_scheduler(self) -> LRScheduler | None:
        return _only(self.lr_schedulers, "learning-rate scheduler") if self.lr_schedulers else None

    def wrap_scaler(self, scaler: GradScaler) -> GradScaler:
        """Include the trial's own GradScaler in checkpoints; the trial scales, unscales and updates."""
        if self.models:
            raise InvalidTrialError(
                "wrap_scaler was called after wrap_model", hint="call wrap_scaler or use_amp first"
            )
        if self.gradients.scaler is not None:
            raise InvalidTrialError("a second GradScaler was wrapped", hint="use one for all optimizers")
        self.gradients.scaler = scaler
        return scaler

    def wrap_amp(self) -> None:
        """Enable automatic mixed precision: see `experimental.use_amp`."""
        if self.models or self.gradients.scaler is not None:
            raise InvalidTrialError(
                "use_amp was called after wrap_model or wrap_scaler",
                hint="call context.experimental.use_amp() first",
            )
        self.gradients.use_amp()

    def wrap_reducer(
        self,
        reducer: MetricReducer | Callable[[list[Any]], Any],
        name: str | None = None,
        for_training: bool = True,  # noqa: FBT001, FBT002  (Determined's own signature)
        for_validation: bool = True,  # noqa: FBT001, FBT002  (Determined's own signature)
    ) -> Untyped:
        """Reduce a metric with a MetricReducer, or with a function of all values passed to `update`."""
        if not isinstance(reducer, MetricReducer):
            if not callable(reducer):
                raise InvalidTrialError(
                    f"wrap_reducer got a {type(reducer).__name__}", hint="pass a MetricReducer or a function"
                )
            reducer = FunctionReducer(reducer)
        self.reducers.add(
            Wrapped(reducer=reducer, name=name, for_training=for_training, for_validation=for_validation)
        )
        return reducer

    def configure_apex_amp(self, *_args: object, **_options: object) -> None:
        """Raise an error: apex is no longer maintained."""
        raise InvalidTrialError(
            "configure_apex_amp: apex is not supported",
            hint="call context.experimental.use_amp() before wrap_model instead",
        )

    def backward(
        self,
        loss: torch.Tensor,
        gradient: torch.Tensor | None = None,
        retain_graph: bool = False,  # noqa: FBT001, FBT002  (Determined's own signature)
        create_graph: bool = False,  # noqa: FBT001, FBT002  (Determined's own signature)
    ) -> None:
        """Call `loss.backward`, with loss scaling if mixed precision is on."""
        if self.gradients.automatic:
            loss = self.gradients.scaled(loss)
        loss.backward(gradient, retain_graph, create_graph)  # type: ignore[no-untyped-call]

    def step_optimizer(
        self,
        optimizer: torch.optim.Optimizer,
        clip_grads: _ClipGrads | None = None,
        auto_zero_grads: bool = True,  # noqa: FBT001, FBT002  (Determined's own signature)
        scaler: GradScaler | None = None,
    ) -> None:
        """Step and zero gradients if this batch ends an aggregation; call `clip_grads(parameters)` first."""
        if clip_grads is None and scaler is None and optimizer in self.gradients.plain:
            optimizer.step()  # fast path for most trials: runs in every batch
            if auto_zero_grads:
                _drop_gradients(optimizer)
            return
        self.gradients.step(optimizer, clip_grads, auto_zero_grads, scaler)

    def to_device(self, data: Untyped) -> Untyped:
        """Move tensors and numeric arrays in nested dicts, lists and tuples to the device."""
        return to_device(data, self.device)

    def current_train_batch(self) -> int:
        return self.clock.batch

    def current_train_epoch(self) -> int:
        return self.clock.epoch

    def is_epoch_start(self) -> bool:
        return self.clock.is_epoch_start

    def is_epoch_end(self) -> bool:
        return self.clock.is_epoch_end

    def get_initial_batch(self) -> int:
        """Return the batches trained before this run. A trial that calls this skips them itself."""
        self.asked_initial_batch = True
        return self.initial_batch

    def get_stop_requested(self) -> bool:
        return self._stop_requested

    def set_stop_requested(self, stop_requested: bool) -> None:  # noqa: FBT001  (Determined's own signature)
        """Checkpoint and end the trial at the next report."""
        if not isinstance(stop_requested, bool):
            raise InvalidTrialError(
                f"set_stop_requested got {stop_requested!r}", hint="call context.set_stop_requested(True)"
            )
        if stop_requested:
            _LOG.info("the trial requested a stop")
        self._stop_requested = stop_requested

    def get_tensorboard_path(self) -> Path:
        return self.board.directory

    def get_tensorboard_writer(self) -> Untyped:
        """Return a SummaryWriter for the trial's path; without the package tensorboard it writes nothing."""
        return self.board.writer

    def set_enable_tensorboard_logging(self, enable_tensorboard_logging: bool) -> None:  # noqa: FBT001  (Determined's own signature)
        self.board.enabled = enable_tensorboard_logging

    def get_enable_tensorboard_logging(self) -> bool:
        return self.board.enabled

    def set_profiler(self, *args: Untyped, **options: Untyped) -> None:
        """Profile with `torch.profiler.profile` and write traces to the TensorBoard path."""
        options["on_trace_ready"] = torch.profiler.tensorboard_trace_handler(str(self.board.directory))
        self.profiler = torch.profiler.profile(*args, **options)


def _only(things: list[_T], what: str) -> _T:
    if len(things) == 1:
        return things[0]
    why = f"no {what} is wrapped yet" if not things else f"{len(things)} are wrapped"
    raise InvalidTrialError(
        f"cannot return the trial's {what}: {why}", hint=f"keep the {what} as an attribute of the trial"
    )


class _StepMode(enum.Enum):
    """When a scheduler is stepped."""

    STEP_EVERY_EPOCH = 1
    STEP_EVERY_BATCH = 2
    MANUAL_STEP = 3
    STEP_EVERY_OPTIMIZER_STEP = 4


class LRScheduler:
    """A scheduler and the mode in which the harness steps it.

    Args:
        scheduler: any scheduler of torch.
        step_mode: when it is stepped.
        frequency: step once per this many epochs or batches.
    """

    StepMode: TypeAlias = _StepMode

    def __init__(self, scheduler: TorchScheduler, step_mode: _StepMode, frequency: int = 1) -> None:
        if not isinstance(step_mode, _StepMode):
            raise InvalidTrialError(
                f"step_mode of a learning-rate scheduler is {step_mode!r}",
                hint="pass one of LRScheduler.StepMode, e.g. LRScheduler.StepMode.STEP_EVERY_EPOCH",
            )
        if frequency < 1:
            raise InvalidTrialError(
                f"frequency of a learning-rate scheduler is {frequency}", hint="set it to 1 or more"
            )
        if isinstance(scheduler, ReduceLROnPlateau) and step_mode is not _StepMode.MANUAL_STEP:
            raise InvalidTrialError(
                "ReduceLROnPlateau steps on a metric, so the harness cannot step it",
                hint="use LRScheduler.StepMode.MANUAL_STEP and call scheduler.step(metric) in your trial",
            )
        self.scheduler = scheduler
        self.step_mode = step_mode
        self.frequency = frequency

    def __getattr__(self, name: str) -> Untyped:
        """Forward e.g. `step` and `get_last_lr`: trials of Determined 0.12 only have this object."""
        if name == "scheduler":  # during a copy
            raise AttributeError(name)
        return getattr(self.scheduler, name)


class Experimental:
    def __init__(self, wrap_amp: Callable[[], None]) -> None:
        self._wrap_amp = wrap_amp
        self.foreign_loaders = False
        self.auto_to_device = True

    def use_amp(self) -> None:
        """Use mixed precision without changes to `train_batch`. Call it before `wrap_model`."""
        self._wrap_amp()

    def disable_dataset_reproducibility_checks(self) -> None:
        """Allow loaders that are not `determined.pytorch.DataLoader`."""
        self.foreign_loaders = True

    def disable_auto_to_device(self) -> None:
        """Do not move batches to the device; the trial calls `context.to_device` itself."""
        self.auto_to_device = False


class _Gradients:
    """The optimizers of one trial and their steps."""

    def __init__(self, aggregation: Aggregation, clock: Clock, device: torch.device) -> None:
        self.aggregation = aggregation
        self.scaler: GradScaler | None = None
        self.automatic = False  # the harness scales and unscales, not the trial
        self._frequency = aggregation.frequency
        self._clock = clock
        self._device = device
        self._average: dict[int, bool] = {}  # by the optimizer's id
        self._update_due = False
        self.plain: set[torch.optim.Optimizer] = (
            set()
        )  # they step after each batch, without scaling or aggregation

    def add(self, optimizer: torch.optim.Optimizer, *, average: bool | None) -> None:
        self._average[id(optimizer)] = self.aggregation.average if average is None else average
        if self._frequency == 1 and not self.automatic:
            self.plain.add(optimizer)

    def use_amp(self) -> None:
        self.scaler = GradScaler(self._device.type, enabled=self._device.type == "cuda")
        self.automatic = True
        self.plain.clear()

    def autocast(self, model: torch.nn.Module) -> None:
        """Run the model in half precision where that is safe; outputs are float32."""
        forward = model.forward

        @functools.wraps(forward)
        def mixed(*args: Untyped, **keywords: Untyped) -> Untyped:
            with torch.autocast(self._device.type):
                return _widened(forward(*args, **keywords))

        model.forward = mixed

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        return self.scaler.scale(loss) if self.scaler is not None else loss

    def step(
        self,
        optimizer: torch.optim.Optimizer,
        clip_grads: _ClipGrads | None,
        auto_zero_grads: bool,  # noqa: FBT001  (forwarded as it came)
        scaler: GradScaler | None,
    ) -> None:
        if id(optimizer) not in self._average:
            raise InvalidTrialError(
                "step_optimizer got an optimizer that was not wrapped",
                hint="wrap it in __init__: self.optimizer = context.wrap_optimizer(optimizer)",
            )
        if self._frequency > 1 and not self._aggregated(optimizer, auto_zero_grads=auto_zero_grads):
            return
        own = self.scaler if self.automatic else None
        if clip_grads is not None:
            if own is not None:
                own.unscale_(optimizer)
            clip_grads(_parameters(optimizer))
        if scaler is not None or own is not None:
            (scaler or own).step(optimizer)  # type: ignore[union-attr]
            self._update_due = scaler is None
        else:
            optimizer.step()
        if auto_zero_grads:
            _drop_gradients(optimizer)

    def end_batch(self) -> None:
        """Update the loss scale after the batch's steps."""
        if self._update_due and self.scaler is not None:
            self.scaler.update()
            self._update_due = False

    def _aggregated(self, optimizer: torch.optim.Optimizer, *, auto_zero_grads: bool) -> bool:
        if not auto_zero_grads:
            raise InvalidTrialError(
                "step_optimizer got auto_zero_grads=False, but optimizations.aggregation_frequency is "
                f"{self._frequency}",
                hint="remove auto_zero_grads, or set aggregation_frequency to 1",
            )
        if (self._clock.batch + 1) % self._frequency:
            return False
        if self._average[id(optimizer)]:
            for parameter in _parameters(optimizer):
                if parameter.grad is not None:
                    parameter.grad.div_(self._frequency)
        return True


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[torch.nn.Parameter]:
    return (parameter for group in optimizer.param_groups for parameter in group["params"])


def _drop_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Do what `optimizer.zero_grad()` does, without its profiler entry; an overridden one is called.

    For a small model the profiler entry costs several times the rest, even without a profiler. See
    https://docs.pytorch.org/docs/stable/generated/torch.optim.Optimizer.zero_grad.html
    """
    if getattr(optimizer.zero_grad, "__func__", None) is not _ZERO_GRAD:
        optimizer.zero_grad()
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None


def gradients_of(models: Iterable[torch.nn.Module]) -> list[dict[str, torch.Tensor]]:
    """Return the aggregated gradients by parameter; empty dicts after an optimizer step."""
    return [{name: p.grad for name, p in model.named_parameters() if p.grad is not None} for model in models]


def restore_gradients(
    models: Iterable[torch.nn.Module], gradients: Iterable[dict[str, torch.Tensor]]
) -> None:
    for model, of_model in zip(models, gradients, strict=False):
        known = dict(model.named_parameters())
        for name, gradient in of_model.items():
            known[name].grad = gradient.to(known[name].device)


def _widened(value: Untyped) -> Untyped:
    if isinstance(value, torch.Tensor):
        return value.float() if value.dtype in {torch.float16, torch.bfloat16} else value
    if isinstance(value, dict):
        return {key: _widened(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and type(value) in {list, tuple}:
        return type(value)(_widened(item) for item in value)
    return value


@dataclass(frozen=True, slots=True)
class Pace:
    """The step schedule of learning-rate schedulers."""

    epoch_length: int | None  # batches; None: endless
    aggregation_frequency: int = 1

    def steps(self, scheduler: LRScheduler, batch_idx: int) -> int:
        """Return the number of steps after batch `batch_idx`, counted from 0 over the trial.

        It is 0 without an optimizer step; after one it covers all batches aggregated in that step.
        """
        done, span, every = batch_idx + 1, self.aggregation_frequency, scheduler.frequency
        if done % span or scheduler.step_mode is _StepMode.MANUAL_STEP:
            return 0
        if scheduler.step_mode is _StepMode.STEP_EVERY_OPTIMIZER_STEP:
            return int(done % every == 0)  # in batches, as Determined counts
        if scheduler.step_mode is _StepMode.STEP_EVERY_BATCH:
            return done // every - (done - span) // every
        if self.epoch_length is None:
            return 0
        # an epoch counts as ended when the next optimizer step falls into a later one
        first, last = batch_idx // self.epoch_length, (batch_idx + span) // self.epoch_length
        return last // every - first // every
