"""Type aliases for values of user code and of TensorFlow, which is untyped."""

from __future__ import annotations

from typing import Any, TypeAlias

Untyped: TypeAlias = Any  # a model, an optimizer, a dataset, a batch
InputData: TypeAlias = Any  # (x, y), (x, y, weights), a Sequence or PyDataset, a tf.data.Dataset
