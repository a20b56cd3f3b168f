"""PyTorchTrial: the class that users derive from, and the checks before training.

In trials of Determined 0.12 the harness owns model, optimizer and step; `open_trial` adapts them to the
current API.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from determined._contract.errors import InvalidTrialError
from determined._trial.context import Trial
from determined.pytorch._callbacks import Hooks
from determined.pytorch._context import LRScheduler
from determined.pytorch._data import data_length
from determined.pytorch._metrics import Reducer

if TYPE_CHECKING:
    from determined.pytorch._callbacks import PyTorchCallback
    from determined.pytorch._context import PyTorchTrialContext
    from determined.pytorch._device import Untyped

_REQUIRED = ("train_batch", "build_training_data_loader", "build_validation_data_loader")
_LEGACY_REQUIRED = ("build_model", "optimizer")
_LOG = logging.getLogger(__name__)
_MIXED = ("O1", "O2", "O3")  # levels of optimizations.mixed_precision


class PyTorchTrial(Trial):
    """A model, its data and its training step. Wrap models and optimizers in `__init__`."""

    _runner: ClassVar[str] = "pytorch"

    def __init__(self, context: PyTorchTrialContext) -> None:
        self.context = context

    def train_batch(self, batch: Untyped, epoch_idx: int, batch_idx: int) -> torch.Tensor | dict[str, Any]:
        """Train on one batch; return metrics or the loss. Called with keywords; indices start at 0."""
        raise NotImplementedError

    def build_training_data_loader(self) -> Untyped:
        raise NotImplementedError

    def build_validation_data_loader(self) -> Untyped:
        raise NotImplementedError

    def evaluate_batch(self, batch: Untyped, batch_idx: int) -> dict[str, Any]:
        """Return the metrics of one validation batch. Define this or `evaluate_full_dataset`."""
        raise NotImplementedError

    def evaluate_full_dataset(self, data_loader: torch.utils.data.DataLoader[Any]) -> dict[str, Any]:
        """Return the metrics of the whole validation set. Define this or `evaluate_batch`."""
        raise NotImplementedError

    def evaluation_reducer(self) -> Reducer | dict[str, Reducer]:
        """Return how the metrics of all validation batches are reduced to one."""
        return Reducer.AVG

    def build_callbacks(self) -> dict[str, PyTorchCallback]:
        """Return callbacks by name; checkpoints store their state under these names."""
        return {}

    def get_batch_length(self, batch: Untyped) -> int:
        """Return the number of records in a batch."""
        return data_length(batch)


def overrides(trial_class: type, method: str) -> bool:
    """Whether the class overrides a method."""
    return getattr(trial_class, method) is not getattr(PyTorchTrial, method)


def _is_legacy(trial_class: type) -> bool:
    """Whether a class uses the API of Determined 0.12, where the harness passes the model to `train_batch`.

    The names of the legacy methods are not enough: later trials may use them for their own helpers.
    """
    train_batch: Callable[..., object] = trial_class.train_batch  # type: ignore[attr-defined]
    parameters = inspect.signature(train_batch).parameters
    if "model" in parameters and parameters["model"].default is inspect.Parameter.empty:
        return True
    takes_it = "model" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return takes_it and all(callable(getattr(trial_class, name, None)) for name in _LEGACY_REQUIRED)


def check_class(trial_class: type) -> None:
    """Check that a class defines the required methods.

    Raises:
        InvalidTrialError: a method is missing, or both evaluation methods are defined.
    """
    name = trial_class.__name__
    missing = [method for method in _REQUIRED if not overrides(trial_class, method)]
    if not missing and _is_legacy(trial_class):
        missing = [method for method in _LEGACY_REQUIRED if not callable(getattr(trial_class, method, None))]
    if missing:
        them = "it" if len(missing) == 1 else "them"
        raise InvalidTrialError(
            f"{name} does not define {' and '.join(missing)}", hint=f"add {them} to {name}"
        )
    _check_evaluation(trial_class)


def check_constructor(trial_class: type) -> None:
    """Check that the harness can create the class; a script may pass more arguments.

    Raises:
        InvalidTrialError: its constructor needs more than the context.
    """
    try:
        inspect.signature(trial_class).bind(None)
    except TypeError as error:
        raise InvalidTrialError(
            f"{trial_class.__name__} cannot be created with the context as its only argument: {error}",
            hint="declare __init__(self, context), or create it in a script with pytorch.init and Trainer",
        ) from None


def _check_evaluation(trial_class: type) -> None:
    name = trial_class.__name__
    defined = [m for m in ("evaluate_batch", "evaluate_full_dataset") if overrides(trial_class, m)]
    if not defined:
        raise InvalidTrialError(
            f"{name} defines neither evaluate_batch nor evaluate_full_dataset", hint="define one of them"
        )
    if len(defined) > 1:
        raise InvalidTrialError(
            f"{name} defines both evaluate_batch and evaluate_full_dataset", hint="remove one of them"
        )


def _check_instance(trial: PyTorchTrial, context: PyTorchTrialContext) -> None:
    """Check the signature of `train_batch`, and that a model and an optimizer are wrapped."""
    name = type(trial).__name__
    _check_train_batch(trial, name)
    for things, thing in ((context.models, "model"), (context.optimizers, "optimizer")):
        if not things:
            raise InvalidTrialError(
                f"{name}.__init__ wrapped no {thing}",
                hint=f"in __init__, set self.{thing} = context.wrap_{thing}({thing})",
            )


def _check_train_batch(trial: PyTorchTrial, name: str) -> None:
    signature = inspect.signature(trial.train_batch)
    try:
        signature.bind(batch=None, epoch_idx=0, batch_idx=0)
    except TypeError as error:
        raise InvalidTrialError(
            f"{name}.train_batch cannot be called with batch, epoch_idx and batch_idx: {error}",
            hint="declare it as train_batch(self, batch, epoch_idx, batch_idx)",
        ) from None


def open_trial(trial: Untyped, context: PyTorchTrialContext) -> tuple[PyTorchTrial, Hooks]:
    """Check a new trial and return it, adapted to the current API, with its callbacks.

    A legacy trial builds its model, optimizer and scheduler here.

    Raises:
        InvalidTrialError: the trial cannot be trained.
    """
    if _is_legacy(type(trial)):
        hooks = Hooks(trial.build_callbacks())
        return _adapted(trial, context, hooks), hooks
    _check_instance(trial, context)
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
    if _is_legacy(type(trial)):
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
