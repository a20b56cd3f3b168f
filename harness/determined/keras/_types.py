"""A name for values of TensorFlow and of user code: TensorFlow is untyped, and says no more of them either."""

from __future__ import annotations

from typing import Any, TypeAlias

Untyped: TypeAlias = Any  # a model, an optimizer, a dataset, a batch
InputData: TypeAlias = Any  # arrays (x, y) or (x, y, weights), a Sequence or PyDataset, or a tf.data.Dataset
