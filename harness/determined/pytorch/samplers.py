"""Composable samplers: shuffle first, then repeat, then shard over processes, then skip."""

from __future__ import annotations

import importlib.util
import random
from itertools import count, islice
from typing import TYPE_CHECKING, TypeVar

from torch.utils.data import Sampler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from determined.pytorch._device import Untyped

_T = TypeVar("_T")


class _Layer(Sampler[_T]):
    """A sampler or batch sampler that wraps another one."""

    def __init__(self, inner: Sampler[_T]) -> None:
        self._inner = inner

    def __len__(self) -> int:
        return _length(self._inner)


class RepeatSampler(_Layer[int]):
    """Repeat forever. Its length is that of one pass."""

    def __init__(self, sampler: Sampler[int]) -> None:
        super().__init__(sampler)

    def __iter__(self) -> Iterator[int]:
        for _ in count():
            yield from self._inner


class RepeatBatchSampler(_Layer[list[int]]):
    """Repeat forever. Its length is that of one pass; batches never span two passes."""

    def __init__(self, batch_sampler: Sampler[list[int]]) -> None:
        super().__init__(batch_sampler)

    def __iter__(self) -> Iterator[list[int]]:
        for _ in count():
            yield from self._inner


class DistributedSampler(_Layer[int]):
    """Every `num_workers`-th record, starting at number `rank`."""

    def __init__(self, sampler: Sampler[int], num_workers: int, rank: int) -> None:
        super().__init__(sampler)
        self._num_workers, self._rank = num_workers, rank

    def __len__(self) -> int:
        return shard_length(_length(self._inner), self._num_workers, self._rank)

    def __iter__(self) -> Iterator[int]:
        return islice(self._inner, self._rank, None, self._num_workers)


class DistributedBatchSampler(_Layer[list[int]]):
    """Every `num_workers`-th batch, starting at number `rank`."""

    def __init__(self, batch_sampler: Sampler[list[int]], num_workers: int, rank: int) -> None:
        super().__init__(batch_sampler)
        self._num_workers, self._rank = num_workers, rank

    def __len__(self) -> int:
        return shard_length(_length(self._inner), self._num_workers, self._rank)

    def __iter__(self) -> Iterator[list[int]]:
        return islice(self._inner, self._rank, None, self._num_workers)


class SkipSampler(_Layer[int]):
    """Skip the first `skip` records, once. Its length is the full one."""

    def __init__(self, sampler: Sampler[int], skip: int) -> None:
        super().__init__(sampler)
        self._skip = skip

    def __iter__(self) -> Iterator[int]:
        return islice(self._inner, self._skip, None)


class SkipBatchSampler(_Layer[list[int]]):
    """Skip the first `skip` batches, once. Its length is the full one."""

    def __init__(self, batch_sampler: Sampler[list[int]], skip: int) -> None:
        super().__init__(batch_sampler)
        self._skip = skip

    def __iter__(self) -> Iterator[list[int]]:
        return islice(self._inner, self._skip, None)


class ReproducibleShuffleSampler(_Layer[int]):
    """Shuffle the records; each pass has a new order, determined by the seed."""

    def __init__(self, sampler: Sampler[int], seed: int) -> None:
        super().__init__(sampler)
        self._random = _generator(seed)

    def __iter__(self) -> Iterator[int]:
        return _shuffled(self._inner, self._random)


class ReproducibleShuffleBatchSampler(_Layer[list[int]]):
    """Shuffle whole batches; each pass has a new order, determined by the seed."""

    def __init__(self, batch_sampler: Sampler[list[int]], seed: int) -> None:
        super().__init__(batch_sampler)
        self._random = _generator(seed)

    def __iter__(self) -> Iterator[list[int]]:
        return _shuffled(self._inner, self._random)


def shard_length(total: int, shards: int, rank: int) -> int:
    """Return how many of `total` items shard `rank` gets when they are assigned round-robin."""
    return total // shards + (rank < total % shards)


def _generator(seed: int) -> Untyped:
    """Return numpy's generator, as in Determined, or Python's if numpy is not installed."""
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
