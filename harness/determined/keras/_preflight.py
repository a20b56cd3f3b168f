"""Preflight validation: one batch before training, traced, and run if its effects can be restored."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tensorflow.python.eager import context as eager
from tensorflow.python.eager.polymorphic_function.polymorphic_function import Function

from determined._contract.errors import InvalidTrialError
from determined._run.outcome import defined_at
from determined._trial.snapshot import CannotRestoreError, NumpyHandler, Snapshot
from determined._trial.validation import log_skipped, preflight_errors, silence
from determined.keras import _random
from determined.keras._effects import check_fresh, check_step, variables_preserved
from determined.keras._feed import without_none
from determined.keras._hooks import validation_names
from determined.keras._sequences import batch_spec, batch_tuple
from determined.keras._tf import KERAS_3, keras, numbers, tf

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from determined._trial.loop import Metrics
    from determined.keras._trainable import Parts
    from determined.keras._types import Untyped

_PREPARING = ("on_test_begin", "on_test_batch_begin")
_OWN = ("evaluate", "make_test_function", "reset_metrics")
_TRANSIENT = (
    *(
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DataLossError,
        tf.errors.DeadlineExceededError,
    ),
    *(tf.errors.InternalError, tf.errors.NotFoundError, tf.errors.PermissionDeniedError),
    *(tf.errors.ResourceExhaustedError, tf.errors.UnavailableError, tf.errors.UnknownError),
)
_HOLDERS = (
    "tensorflow.core.function",
    "tensorflow.python.eager.polymorphic",
    "tensorflow.python.util.object_id",
)


def preflight(parts: Parts) -> Metrics | None:
    """Validate one batch without callbacks, then restore all state; None if that is not possible.

    A metric of the traced step that could not be computed is None.
    """
    context_dir = Path(parts.info.context_dir).resolve()
    try:
        _check(parts)
        with _random.preserved(), silence():
            snapshot = Snapshot(_roots(parts), context_dir, _Keeper())
    except CannotRestoreError as error:
        log_skipped(error)
        return None
    found: tuple[Metrics, str] | None = None
    owners = (parts.trial, parts.context.model)
    try:
        with preflight_errors(owners, context_dir, _TRANSIENT), _generators_preserved(), silence():
            found = _validated(parts)
    finally:
        snapshot.restore()
    if found is None:
        return None
    if found[1]:
        log_skipped(f"{found[1]}; its step was only traced")
    return found[0]


def _check(parts: Parts) -> None:
    """Check that the step changes nothing that cannot be restored.

    Raises:
        CannotRestoreError: preflight validation is not possible.
    """
    model = parts.context.model
    own = next((name for name in _OWN if getattr(type(model), name) is not getattr(keras.Model, name)), None)
    if own:
        raise CannotRestoreError(f"the model has its own {own}")
    if model.run_eagerly or tf.config.functions_run_eagerly():
        raise CannotRestoreError("the model runs eagerly, so the effects of its step are unknown")
    if not model.built or not all(layer.built for layer in model._flatten_layers()):  # noqa: SLF001
        raise CannotRestoreError("the model creates its weights with the first batch")
    if parts.strategy.num_replicas_in_sync > 1:
        raise CannotRestoreError("the model trains on several devices")
    for one in parts.hooks.all.callbacks:
        for name in _PREPARING:
            method = getattr(type(one), name)
            if not method.__module__.startswith(("keras.", "determined.")):
                raise CannotRestoreError(f"a callback prepares validation in {name}")


def _roots(parts: Parts) -> list[object]:
    roots = [parts.trial, parts.context, *parts.hooks.all.callbacks, parts.validation]
    if KERAS_3:
        from keras.src.backend.common.global_state import GLOBAL_STATE_TRACKER as HELD
    else:
        from keras.src.backend import _SEED_GENERATOR as HELD
    return [*roots, vars(HELD)]


def _validated(parts: Parts) -> tuple[Metrics, str]:
    """Return the metrics of one batch, or None for each, with the reason why it was not run."""
    model, why, batch = parts.context.model, "", None
    data = parts.validation["x"]
    if isinstance(data, tf.data.Dataset):
        spec = data.element_spec
        try:
            check_fresh(data)
        except CannotRestoreError as error:
            why = str(error)
    else:
        batch = _of_arrays(parts.validation)
        spec = tf.nest.map_structure(batch_spec, batch, batch)
        batch = tf.nest.map_structure(lambda array, of: tf.convert_to_tensor(array, of.dtype), batch, spec)
    traced = tf.function(model.test_step, autograph=not KERAS_3).get_concrete_function(spec)
    names = validation_names(_named(traced.structured_outputs, model))
    try:
        check_step(traced)
    except CannotRestoreError as error:
        why = why or str(error)
    if not why and batch is None:
        batch = next(iter(data), None)
        why = "" if batch is not None else "the validation data has no batches"
    if why:
        return dict.fromkeys(names), why
    with variables_preserved(traced):
        return validation_names(numbers(traced(batch))), ""


def _of_arrays(arguments: Mapping[str, Untyped]) -> tuple[Untyped, ...]:
    """Return the first batch of arrays or of a Sequence, as `model.evaluate` reads it."""
    data = arguments["x"]
    if isinstance(data, keras.utils.Sequence):
        return batch_tuple(data[0])
    parts = without_none((data, arguments["y"], arguments.get("sample_weight")))
    return tf.nest.map_structure(lambda array: array[: arguments["batch_size"]], parts)  # type: ignore[no-any-return]


def _named(outputs: Untyped, model: Untyped) -> dict[str, Untyped]:
    if isinstance(outputs, dict):
        return outputs
    raise InvalidTrialError(
        f"{defined_at(model.test_step)}: the model's test_step returned a {type(outputs).__name__}, "
        "not metrics by name",
        hint='return a dict from test_step, e.g. {"loss": loss}',
    )


@contextmanager
def _generators_preserved() -> Iterator[None]:
    """Restore the states of Python, numpy, and TensorFlow's generator of operation seeds after the block."""
    drawn = eager.context()._rng  # noqa: SLF001  (TensorFlow has no public name for it)
    state = drawn.getstate()
    try:
        with _random.preserved():
            yield
    finally:
        drawn.setstate(state)


class _Keeper(NumpyHandler):
    """Saves arrays and the Python side of TensorFlow objects; variables are saved when a step is run."""

    def __call__(self, value: Untyped, snapshot: Snapshot) -> bool:
        module = type(value).__module__
        if self.numpy(value, snapshot):
            return True
        if not module.startswith("tensorflow") or isinstance(value, (list, set)):
            return False
        if isinstance(value, (dict, tuple)):
            snapshot.visit(getattr(value, "__wrapped__", None))
        elif module.startswith(_HOLDERS) and not callable(value):
            snapshot.attributes(value)
        elif isinstance(value, Function):  # its traces, per object that it is a method of
            snapshot.visit(vars(value), value._descriptor_cache.data)  # noqa: SLF001  (as above)
        return True
