"""Names for values of user code, which torch does not type any further either."""

from __future__ import annotations

from typing import Any, TypeAlias

Untyped: TypeAlias = Any  # a batch, a metric, a sampler: whatever user code made it
Array: TypeAlias = Any  # torch.Tensor or numpy.ndarray; numpy need not be installed
TorchData: TypeAlias = Any  # tensors, and dicts, lists and tuples of them, as users annotate their batches
