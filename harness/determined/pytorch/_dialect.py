"""Adapt trials of Determined 0.12, where the harness owns model, optimizer and step, to the current API."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from determined._contract.errors import InvalidTrialError
from determined.pytorch._callbacks import Hooks
from determined.pytorch._lr_scheduler import LRScheduler
from determined.pytorch._trial import PyTorchTrial, check_instance, is_legacy, overrides

if TYPE_CHECKING:
    from determined.pytorch._context import PyTorchTrialContext
    from determined.pytorch._reducers import Reducer
    from determined.pytorch._types import Untyped

_LOG = logging.getLogger(__name__)
_MIXED = ("O1", "O2", "O3")  # levels of optimizations.mixed_precision


def open_trial(trial: Untyped, context: PyTorchTrialContext) -> tuple[PyTorchTrial, Hooks]:
    """Check a new trial and return it, adapted to the current API, with its callbacks.

    A legacy trial builds its model, optimizer and scheduler here.

    Raises:
        InvalidTrialError: the trial cannot be trained.
    """
    if is_legacy(type(trial)):
        hooks = Hooks(trial.build_callbacks())
        return _adapted(trial, context, hooks), hooks
    check_instance(trial, context)
    if _mixed_precision(context):
        _LOG.warning(
            "optimizations.mixed_precision only affects trials that define build_model; "
            "call context.experimental.use_amp() before context.wrap_model instead"
        )
    hooks = Hooks(trial.build_callbacks())
    if hooks.of("on_before_optimizer_step"):
        raise InvalidTrialError(
            "a callback overrides on_before_optimizer_step, but the trial steps its optimizer itself",
            hint="pass it to context.step_optimizer(optimizer, clip_grads=...)",
        )
    return trial, hooks


def build_model(trial: Untyped, context: PyTorchTrialContext) -> None:
    """Build and wrap the model of a legacy trial; other trials did so in `__init__`."""
    if is_legacy(type(trial)):
        context.wrap_model(trial.build_model())


def _adapted(trial: Untyped, context: PyTorchTrialContext, hooks: Hooks) -> PyTorchTrial:
    if _mixed_precision(context):
        context.experimental.use_amp()
    build_model(trial, context)
    context.wrap_optimizer(trial.optimizer(context.get_model()))
    scheduler = _scheduler(trial, context)
    if scheduler is not None:
        context.wrap_lr_scheduler(scheduler.scheduler, scheduler.step_mode, scheduler.frequency)
    whole = overrides(type(trial), "evaluate_full_dataset")
    return (_LegacyDatasetAdapter if whole else _LegacyBatchAdapter)(trial, context, hooks)


def _scheduler(trial: Untyped, context: PyTorchTrialContext) -> LRScheduler | None:
    create = getattr(trial, "create_lr_scheduler", None)
    scheduler = create(context.get_optimizer()) if create else None
    if scheduler is None or isinstance(scheduler, LRScheduler):
        return scheduler
    raise InvalidTrialError(
        f"create_lr_scheduler returned a {type(scheduler).__name__}",
        hint="return determined.pytorch.LRScheduler(scheduler, step_mode), or None",
    )


def _mixed_precision(context: PyTorchTrialContext) -> bool:
    """Whether the config requests apex mixed precision, which torch's own replaces here."""
    options = context.env.experiment_config.get("optimizations")
    return isinstance(options, Mapping) and options.get("mixed_precision") in _MIXED


class _LegacyAdapter(PyTorchTrial):
    """Adapts a legacy trial: passes it the model and the batch, and steps its optimizer."""

    def __init__(self, trial: Untyped, context: PyTorchTrialContext, hooks: Hooks) -> None:
        super().__init__(context)
        self.inner = trial
        self._model, self._optimizer = context.get_model(), context.get_optimizer()
        before = hooks.of("on_before_optimizer_step")
        self._before_step = _calling(before, self._model) if before else None

    def train_batch(self, batch: Untyped, epoch_idx: int, batch_idx: int) -> torch.Tensor | dict[str, Any]:
        outcome: torch.Tensor | dict[str, Any] = self.inner.train_batch(
            batch=batch, model=self._model, epoch_idx=epoch_idx, batch_idx=batch_idx
        )
        self.context.backward(_loss(outcome))
        self.context.step_optimizer(self._optimizer, self._before_step)
        return outcome

    def build_training_data_loader(self) -> Untyped:
        return self.inner.build_training_data_loader()

    def build_validation_data_loader(self) -> Untyped:
        return self.inner.build_validation_data_loader()

    def evaluation_reducer(self) -> Reducer | dict[str, Reducer]:
        reducer: Reducer | dict[str, Reducer] = self.inner.evaluation_reducer()
        return reducer

    def get_batch_length(self, batch: Untyped) -> int:
        return int(self.inner.get_batch_length(batch))


class _LegacyBatchAdapter(_LegacyAdapter):
    def evaluate_batch(self, batch: Untyped) -> Untyped:  # type: ignore[override]
        return _called(self.inner.evaluate_batch, batch=batch, model=self._model)


class _LegacyDatasetAdapter(_LegacyAdapter):
    def evaluate_full_dataset(self, data_loader: Untyped) -> Untyped:
        return _called(self.inner.evaluate_full_dataset, data_loader=data_loader, model=self._model)


def _loss(outcome: object) -> torch.Tensor:
    loss = outcome.get("loss") if isinstance(outcome, Mapping) else outcome
    if isinstance(loss, torch.Tensor):
        return loss
    raise InvalidTrialError(
        "train_batch returned no loss",
        hint="return the loss as a tensor, or a dict with the key `loss`",
    )


def _calling(hooks: tuple[Callable[..., object], ...], model: torch.nn.Module) -> Callable[[object], object]:
    """Return the hooks as one `clip_grads` function; each gets its own iterator."""

    def call(_: object) -> None:
        for hook in hooks:
            hook(model.parameters())

    return call


def _called(method: Callable[..., Untyped], **named: object) -> Untyped:
    """Call by keyword, as Determined did, or by position if the trial uses other names."""
    signature = inspect.signature(method)
    if _binds(lambda: signature.bind(**named)):
        return method(**named)
    if _binds(lambda: signature.bind(*named.values())):
        return method(*named.values())
    name, arguments = method.__name__, " and ".join(named)
    raise InvalidTrialError(
        f"{name} cannot be called with {arguments}",
        hint=f"declare it as {name}(self, {', '.join(named)}), because the trial defines build_model",
    )


def _binds(bind: Callable[[], object]) -> bool:
    try:
        bind()
    except TypeError:
        return False
    return True
