"""Type aliases for values of user code, which are untyped in torch as well."""

from __future__ import annotations

from typing import Any, TypeAlias

Untyped: TypeAlias = Any  # a batch, a metric, a sampler: any object of user code
Array: TypeAlias = Any  # torch.Tensor or numpy.ndarray; numpy need not be installed
TorchData: TypeAlias = Any  # tensors, and dicts, lists and tuples of them: for annotations of batches
