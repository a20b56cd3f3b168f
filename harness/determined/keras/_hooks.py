"""The callbacks of one trial, called in Keras' order, at no cost for unused hooks."""

from __future__ import annotations

import importlib.util
import logging
from typing import TYPE_CHECKING, TypeAlias

from determined._contract.errors import InvalidTrialError
from determined.keras._tf import keras
from determined.keras.callbacks import Callback, TensorBoard

if TYPE_CHECKING:
    from collections.abc import Callable

    from determined.keras._tf import Untyped
    from determined.keras._trial import TFKerasTrialContext

_LOG = logging.getLogger(__name__)
_BatchHook: TypeAlias = "Callable[..., object] | None"
_TRAIN_BATCH = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")
_TEST_BATCH = ("on_test_batch_begin", "on_test_batch_end")
_END_OF_EPOCH = (keras.callbacks.EarlyStopping, keras.callbacks.ReduceLROnPlateau)


class Hooks:
    """Keras' list of callbacks, and those of them with hooks for workloads and checkpoints.

    Args:
        callbacks: the result of `keras_callbacks`.
        context: of the trial; its model is built and compiled.
        epoch_length: in steps.
    """

    def __init__(self, callbacks: object, context: TFKerasTrialContext, epoch_length: int | None) -> None:
        checked = _with_tensorboard(_checked(callbacks), context)
        self.all = keras.callbacks.CallbackList(
            checked, model=context.model, epochs=1, steps=epoch_length, verbose=0
        )
        self._newest: list[tuple[str, Untyped]] = []
        self.own = [one for one in checked if isinstance(one, Callback)]
        # Both or none: Keras 2 measures the time between them.
        listening = _any(checked, *_TRAIN_BATCH)
        self.train_batch_begin: _BatchHook = self.all.on_train_batch_begin if listening else None
        self.train_batch_end: _BatchHook = self.all.on_train_batch_end if listening else None
        self.in_test = _TestBatchHooks(self) if _any(checked, *_TEST_BATCH) else _TestHooks(self)

    def call(self, name: str, *args: object) -> None:
        """Call a hook that only `determined.keras.callbacks.Callback` has."""
        for one in self.own:
            getattr(one, name)(*args)

    def states(self, *, ask: bool = True) -> list[tuple[str, Untyped]]:
        """Return the state of each callback; without `ask`, the one saved or loaded last."""
        if ask:
            self._newest = [(type(one).__name__, one.get_state()) for one in self.own]
        return self._newest

    def load_states(self, states: list[tuple[str, Untyped]]) -> None:
        """Load the states of callbacks; one whose class differs from the saved one starts new."""
        self._newest = states
        for one, (kind, state) in zip(self.own, states, strict=False):
            if kind == type(one).__name__ and state is not None:
                one.load_state(state)


class _TestHooks(keras.callbacks.Callback):  # type: ignore[misc]  # TensorFlow is untyped
    """The only callback passed to `model.evaluate`; forwards to all others, with `val_` names."""

    def __init__(self, hooks: Hooks) -> None:
        super().__init__()
        self._hooks = hooks

    def on_test_begin(self, logs: Untyped = None) -> None:
        self._hooks.all.on_test_begin(logs)

    def on_test_end(self, logs: Untyped = None) -> None:
        self._hooks.all.on_test_end(validation_names(logs or {}))

    def test_list(self) -> Untyped:
        """Return a callback list for a validation without `model.evaluate`."""
        return keras.callbacks.CallbackList([self], model=self._hooks.all.model, verbose=0)


class _TestBatchHooks(_TestHooks):
    """Adds batch hooks only if a callback uses them, because Keras synchronizes for them."""

    def on_test_batch_begin(self, batch: int, logs: Untyped = None) -> None:
        self._hooks.all.on_test_batch_begin(batch, logs)

    def on_test_batch_end(self, batch: int, logs: Untyped = None) -> None:
        self._hooks.all.on_test_batch_end(batch, logs)


def validation_names(metrics: dict[str, Untyped]) -> dict[str, Untyped]:
    return {name if name.startswith("val_") else f"val_{name}": value for name, value in metrics.items()}


def _any(callbacks: list[Untyped], *names: str) -> bool:
    """Whether a callback overrides one of these hooks, in its class or on the object."""
    base = keras.callbacks.Callback
    return any(
        getattr(getattr(one, name), "__func__", None) is not getattr(base, name)
        for one in callbacks
        for name in names
    )


def _with_tensorboard(callbacks: list[Untyped], context: TFKerasTrialContext) -> list[Untyped]:
    """Set the directory of TensorBoard callbacks; drop them with a warning if the package is missing."""
    boards = [one for one in callbacks if isinstance(one, TensorBoard)]
    for board in boards:
        board.set_log_dir(context.get_tensorboard_path())
    if boards and importlib.util.find_spec("tensorboard") is None:
        _LOG.warning(
            "no TensorBoard files are written: the package tensorboard is not installed; "
            "add `tensorboard` to requirements.txt"
        )
        return [one for one in callbacks if one not in boards]
    return callbacks


def _checked(callbacks: object) -> list[Untyped]:
    hint = "return a list of Keras callbacks from keras_callbacks"
    if not isinstance(callbacks, (list, tuple)):
        raise InvalidTrialError(f"keras_callbacks returned a {type(callbacks).__name__}", hint=hint)
    for one in callbacks:
        name = type(one).__name__
        if not isinstance(one, keras.callbacks.Callback):
            raise InvalidTrialError(
                f"keras_callbacks returned a {name}, which is not a Keras callback", hint=hint
            )
        if isinstance(one, _END_OF_EPOCH) and not isinstance(one, Callback):
            _LOG.warning(
                "Keras' own %s receives no validation metrics: use determined.keras.callbacks.%s", name, name
            )
    return list(callbacks)
