"""Side effects of reading a data set or running a traced step, found by static analysis."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from tensorflow.python.framework import auto_control_deps_utils, op_def_registry

from determined._trial.snapshot import CannotRestoreError
from determined.keras._tf import tf

if TYPE_CHECKING:
    from collections.abc import Iterator

    from determined.keras._types import Untyped

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


def check_fresh(dataset: Untyped) -> None:
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
        check_fresh(part)


def check_step(traced: Untyped) -> None:
    """Check that a traced function changes only variables.

    Raises:
        CannotRestoreError: an operation has other effects.
    """
    for name in sorted(_stateful(traced.graph)):
        if name not in _CALLS | _READS and not name.startswith(_OF_VARIABLES):
            raise CannotRestoreError(f"its step runs {name}, whose effect cannot be undone")


@contextmanager
def variables_preserved(traced: Untyped) -> Iterator[None]:
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
