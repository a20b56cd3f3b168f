"""PyTorchTrial, the class that users derive from, and the checks made on it before training."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ClassVar

from determined._contract.errors import InvalidTrialError
from determined._trial.context import Trial
from determined.pytorch._data import data_length
from determined.pytorch._reducers import Reducer

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from determined.pytorch._callbacks import PyTorchCallback
    from determined.pytorch._context import PyTorchTrialContext
    from determined.pytorch._types import Untyped

_REQUIRED = ("train_batch", "build_training_data_loader", "build_validation_data_loader")
_LEGACY_REQUIRED = ("build_model", "optimizer")


class PyTorchTrial(Trial):
    """A model, its data and its training step. Wrap models and optimizers in `__init__`."""

    _runner: ClassVar[str] = "determined.pytorch._runner:run_trial"

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


def is_legacy(trial_class: type) -> bool:
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
    if not missing and is_legacy(trial_class):
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


def check_instance(trial: PyTorchTrial, context: PyTorchTrialContext) -> None:
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
