"""Names for values of TensorFlow and of user code: TensorFlow is untyped, and says no more of them."""

from __future__ import annotations

from typing import Any, TypeAlias

Untyped: TypeAlias = Any  # a model, an optimizer, a dataset, a batch
InputData: TypeAlias = Any  # (x, y), (x, y, weights), a Sequence or PyDataset, a tf.data.Dataset
