"""Samplers to build an order from: shuffle first, then repeat, then share among processes, then skip."""

from __future__ import annotations

import importlib.util
import random
from itertools import count, islice
from typing import TYPE_CHECKING, TypeVar

from torch.utils.data import Sampler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from determined.pytorch._types import Untyped

_T = TypeVar("_T")


class _Layer(Sampler[_T]):
    """A sampler, or batch sampler, over another one."""

    def __init__(self, inner: Sampler[_T]) -> None:
        self._inner = inner

    def __len__(self) -> int:
        return _length(self._inner)


class RepeatSampler(_Layer[int]):
    """Begin again for ever. Its length is that of one pass."""

    def __init__(self, sampler: Sampler[int]) -> None:
        super().__init__(sampler)

    def __iter__(self) -> Iterator[int]:
        for _ in count():
            yield from self._inner


class RepeatBatchSampler(_Layer[list[int]]):
    """Begin again for ever. Its length is that of one pass; batches never span two passes."""

    def __init__(self, batch_sampler: Sampler[list[int]]) -> None:
        super().__init__(batch_sampler)

    def __iter__(self) -> Iterator[list[int]]:
        for _ in count():
            yield from self._inner


class DistributedSampler(_Layer[int]):
    """Every `num_workers`-th record, beginning with that of number `rank`."""

    def __init__(self, sampler: Sampler[int], num_workers: int, rank: int) -> None:
        super().__init__(sampler)
        self._num_workers, self._rank = num_workers, rank

    def __len__(self) -> int:
        return shard_length(_length(self._inner), self._num_workers, self._rank)

    def __iter__(self) -> Iterator[int]:
        return islice(self._inner, self._rank, None, self._num_workers)


class DistributedBatchSampler(_Layer[list[int]]):
    """Every `num_workers`-th batch, beginning with that of number `rank`."""

    def __init__(self, batch_sampler: Sampler[list[int]], num_workers: int, rank: int) -> None:
        super().__init__(batch_sampler)
        self._num_workers, self._rank = num_workers, rank

    def __len__(self) -> int:
        return shard_length(_length(self._inner), self._num_workers, self._rank)

    def __iter__(self) -> Iterator[list[int]]:
        return islice(self._inner, self._rank, None, self._num_workers)


class SkipSampler(_Layer[int]):
    """Leave out the first `skip` records. Its length is the whole one: what is skipped is skipped once."""

    def __init__(self, sampler: Sampler[int], skip: int) -> None:
        super().__init__(sampler)
        self._skip = skip

    def __iter__(self) -> Iterator[int]:
        return islice(self._inner, self._skip, None)


class SkipBatchSampler(_Layer[list[int]]):
    """Leave out the first `skip` batches. Its length is the whole one: what is skipped is skipped once."""

    def __init__(self, batch_sampler: Sampler[list[int]], skip: int) -> None:
        super().__init__(batch_sampler)
        self._skip = skip

    def __iter__(self) -> Iterator[list[int]]:
        return islice(self._inner, self._skip, None)


class ReproducibleShuffleSampler(_Layer[int]):
    """Shuffle the records; each pass differs from the one before, and equal seeds give equal passes."""

    def __init__(self, sampler: Sampler[int], seed: int) -> None:
        super().__init__(sampler)
        self._random = _generator(seed)

    def __iter__(self) -> Iterator[int]:
        return _shuffled(self._inner, self._random)


class ReproducibleShuffleBatchSampler(_Layer[list[int]]):
    """Shuffle whole batches; each pass differs from the one before, and equal seeds give equal passes."""

    def __init__(self, batch_sampler: Sampler[list[int]], seed: int) -> None:
        super().__init__(batch_sampler)
        self._random = _generator(seed)

    def __iter__(self) -> Iterator[list[int]]:
        return _shuffled(self._inner, self._random)


def shard_length(total: int, shards: int, rank: int) -> int:
    """How many of `total` things go to the shard `rank` when they are dealt out like cards."""
    return total // shards + (rank < total % shards)


def _generator(seed: int) -> Untyped:
    """numpy's, as Determined has it; Python's where numpy is not installed."""
    if importlib.util.find_spec("numpy") is None:
        return random.Random(seed)  # noqa: S311  (an order, not a secret)
    import numpy as np

    return np.random.RandomState(seed)


def _shuffled(sampler: Sampler[_T], order: Untyped) -> Iterator[_T]:
    items = list(sampler)
    order.shuffle(items)
    return iter(items)


def _length(sampler: Untyped) -> int:
    return len(sampler)


__all__ = [
    "DistributedBatchSampler",
    "DistributedSampler",
    "RepeatBatchSampler",
    "RepeatSampler",
    "ReproducibleShuffleBatchSampler",
    "ReproducibleShuffleSampler",
    "SkipBatchSampler",
    "SkipSampler",
]
