"""TFKerasTrial, the class that users derive from, and the checks made on it before training."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from determined._contract.errors import InvalidTrialError
from determined._trial.context import Trial

if TYPE_CHECKING:
    from determined.keras._context import TFKerasTrialContext
    from determined.keras._types import InputData, Untyped

_REQUIRED = ("build_model", "build_training_data_loader", "build_validation_data_loader")


class TFKerasTrial(Trial):
    """A compiled Keras model and its data. Wrap the model in `build_model`, before `compile`."""

    _runner: ClassVar[str] = "determined.keras._runner:run_trial"
    _one_process: ClassVar[bool] = True

    def __init__(self, context: TFKerasTrialContext) -> None:
        self.context = context

    def build_model(self) -> Untyped:
        """Return the model: `context.wrap_model(model)`, then `model.compile(...)`."""
        raise NotImplementedError

    def build_training_data_loader(self) -> InputData:
        """Return `(x, y)`, `(x, y, weights)`, a Sequence or PyDataset, or a `tf.data.Dataset`."""
        raise NotImplementedError

    def build_validation_data_loader(self) -> InputData:
        raise NotImplementedError

    def keras_callbacks(self) -> list[Untyped]:
        """Return callbacks from Keras and from `determined.keras.callbacks`."""
        return []

    def session_config(self) -> Untyped:
        """Return TensorFlow 1's ConfigProto; it has no effect in TensorFlow 2."""
        return None


def check_class(trial_class: type) -> None:
    """Check that a class defines the required methods.

    Raises:
        InvalidTrialError: a method is missing.
    """
    name = trial_class.__name__
    missing = [m for m in _REQUIRED if getattr(trial_class, m) is getattr(TFKerasTrial, m)]
    if missing:
        them = "it" if len(missing) == 1 else "them"
        raise InvalidTrialError(
            f"{name} does not define {' and '.join(missing)}", hint=f"add {them} to {name}"
        )
