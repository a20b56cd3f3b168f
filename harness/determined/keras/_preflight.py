"""Preflight validation: one batch before training, traced, and run if its effects can be restored.

TensorFlow states which operations have effects. A static analysis of the data set and of the traced step
decides: both may only change variables, which are restored afterwards; otherwise the step is traced and
not run.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tensorflow.python.eager import context as eager
from tensorflow.python.eager.polymorphic_function.polymorphic_function import Function
from tensorflow.python.framework import auto_control_deps_utils, op_def_registry

from determined._contract.errors import InvalidTrialError
from determined._run.outcome import defined_at
from determined._trial.snapshot import CannotRestoreError, NumpyHandler, Snapshot
from determined._trial.validation import log_skipped, preflight_errors, silence
from determined.keras._feed import batch_spec, batch_tuple, preserved, without_none
from determined.keras._hooks import validation_names
from determined.keras._tf import KERAS_3, keras, numbers, tf

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from determined._contract.run_info import RunInfo
    from determined._trial.loop import Metrics
    from determined.keras._feed import Feed
    from determined.keras._hooks import Hooks
    from determined.keras._tf import Untyped
    from determined.keras._trial import TFKerasTrial, TFKerasTrialContext

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
# Operations that TensorFlow marks as stateful, but that only have the state of variables, or none.
_CALLS = {"Assert", "Case", "If", "PartitionedCall", "StatefulPartitionedCall", "While"}
_READS = {"LookupTableFindV2", "LookupTableSizeV2", "ReadVariableOp", "ResourceGather", "ResourceGatherNd"}
_SOURCES = {"RangeDataset", "TensorDataset", "TensorSliceDataset", "TFRecordDataset", "TextLineDataset"}
_OF_VARIABLES = (
    *("Assign", "ResourceApply", "ResourceScatter", "ResourceSparseApply", "ResourceStrided", "Rng"),
    *("StatefulStandardNormal", "StatefulTruncatedNormal", "StatefulUniform", "VarIsInitialized"),
)
# Data sets that restart with each iterator. A shuffle draws a seed per iterator; a cache must be read whole.
_FRESH = {
    *("BatchDataset", "ConcatenateDataset", "FilterDataset", "FlatMapDataset", "InterleaveDataset"),
    *(
        "MapDataset",
        "OptionsDataset",
        "PaddedBatchDataset",
        "ParallelBatchDataset",
        "ParallelInterleaveDataset",
    ),
    *(
        "ParallelMapDataset",
        "PrefetchDataset",
        "RangeDataset",
        "RepeatDataset",
        "ShardDataset",
        "SkipDataset",
    ),
    *("TFRecordDatasetV2", "TakeDataset", "TakeWhileDataset", "TensorDataset", "TensorSliceDataset"),
    *("TextLineDatasetV2", "UnbatchDataset", "ZipDataset"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """The parts of a built trial."""

    trial: TFKerasTrial
    context: TFKerasTrialContext
    hooks: Hooks
    feed: Feed
    validation: Mapping[str, Untyped]  # arguments of model.evaluate
    strategy: Untyped
    info: RunInfo
    data_seed: int


def preflight(parts: Parts) -> Metrics | None:
    """Validate one batch without callbacks, then restore all state; None if that is not possible.

    A metric of the traced step that could not be computed is None.
    """
    context_dir = Path(parts.info.context_dir).resolve()
    try:
        _check(parts)
        with preserved(), silence():
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
            _check_fresh(data)
        except CannotRestoreError as error:
            why = str(error)
    else:
        batch = _of_arrays(parts.validation)
        spec = tf.nest.map_structure(batch_spec, batch, batch)
        batch = tf.nest.map_structure(lambda array, of: tf.convert_to_tensor(array, of.dtype), batch, spec)
    traced = tf.function(model.test_step, autograph=not KERAS_3).get_concrete_function(spec)
    names = validation_names(_named(traced.structured_outputs, model))
    try:
        _check_step(traced)
    except CannotRestoreError as error:
        why = why or str(error)
    if not why and batch is None:
        batch = next(iter(data), None)
        why = "" if batch is not None else "the validation data has no batches"
    if why:
        return dict.fromkeys(names), why
    with _variables_preserved(traced):
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
        with preserved():
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


def _check_fresh(dataset: Untyped) -> None:
    """Check that reading a data set has no side effects.

    Raises:
        CannotRestoreError: a part of it is stateful.
    """
    kind = type(dataset).__name__.lstrip("_")
    if kind not in _FRESH:
        raise CannotRestoreError(f"reading a {kind} of the validation data may have side effects")
    for function in dataset._functions():  # noqa: SLF001  (TensorFlow has no public name for it)
        for name in sorted(_stateful(function.function.graph)):
            if name not in _CALLS | _READS | _SOURCES:
                raise CannotRestoreError(f"the operation {name} of the validation data may have side effects")
    for part in dataset._inputs():  # noqa: SLF001  (as above)
        _check_fresh(part)


def _check_step(traced: Untyped) -> None:
    """Check that a traced function changes only variables.

    Raises:
        CannotRestoreError: an operation has other effects.
    """
    for name in sorted(_stateful(traced.graph)):
        if name not in _CALLS | _READS and not name.startswith(_OF_VARIABLES):
            raise CannotRestoreError(f"its step runs {name}, whose effect cannot be undone")


@contextmanager
def _variables_preserved(traced: Untyped) -> Iterator[None]:
    """Restore every variable that a traced function may assign: all of them are captured inputs."""
    read_only = set(auto_control_deps_utils.get_read_only_resource_input_indices_graph(traced.graph))
    captured = traced.captured_inputs
    first = len(traced.inputs) - len(captured)
    written = [
        one
        for index, one in enumerate(captured, first)
        if one.dtype == tf.resource and index not in read_only
    ]
    kept = [(handle, dtype, _read(handle, dtype)) for handle in written if (dtype := _held(handle))]
    try:
        yield
    finally:
        for handle, dtype, value in kept:
            tf.raw_ops.AssignVariableOp(resource=handle, value=tf.constant(value, dtype=dtype))


def _stateful(graph: Untyped) -> set[str]:
    """Return the stateful operations, including those of called functions."""
    definition = graph.as_graph_def()
    functions = definition.library.function
    nodes = {node.op for node in definition.node} | {n.op for one in functions for n in one.node_def}
    found = {name: op_def_registry.get(name) for name in nodes}
    return {name for name, known in found.items() if known is not None and known.is_stateful} - {
        "Placeholder"
    }


def _held(handle: Untyped) -> Untyped:
    """Return the dtype of a variable's value; None for other handles."""
    data = handle._handle_data  # noqa: SLF001  (TensorFlow has no public name for it)
    return tf.as_dtype(data.shape_and_type[0].dtype) if data is not None and data.is_set else None


def _read(handle: Untyped, dtype: Untyped) -> Untyped:
    return np.array(tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype).numpy())
