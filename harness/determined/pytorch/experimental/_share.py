"""The shard of one process: every N-th batch, each record once, in the order of the data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch.utils.data

from determined._contract.errors import InvalidTrialError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_UNSUPPORTED = {
    "dataset": "pass it as dataset",
    "sampler": "sort the data set itself: records are processed in its order",
    "batch_sampler": "sort the data set itself: records are processed in its order",
    "shuffle": "remove it: a resumed job needs a fixed order",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """The batches of one process."""

    records: int
    batch_size: int
    drop_last: bool
    rank: int
    size: int
    limit: int | None  # batches per process

    @property
    def rounds(self) -> int:
        """The largest number of batches of any process."""
        rounds = -(-self._batches // self.size)
        return rounds if self.limit is None else min(rounds, self.limit)

    def indices(self, begin: int) -> Iterator[list[int]]:
        """Yield the record indices of each batch, starting at batch `begin`."""
        for number in range(begin, self.rounds):
            batch = number * self.size + self.rank
            if batch < self._batches:
                first = batch * self.batch_size
                yield list(range(first, min(first + self.batch_size, self.records)))

    @property
    def _batches(self) -> int:
        whole, rest = divmod(self.records, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)


class RemainingBatches(torch.utils.data.Sampler[list[int]]):
    """Batch sampler over the remaining batches of a shard."""

    def __init__(self, shard: Shard, begin: int) -> None:
        self._shard, self._begin = shard, begin

    def __iter__(self) -> Iterator[list[int]]:
        return self._shard.indices(self._begin)


def plan_shard(
    dataset: object,
    *,
    batch_size: int | None,
    max_batches: int | None,
    options: Mapping[str, Any],
    rank: int,
    size: int,
) -> Shard:
    """Check the arguments of `torch_batch_process` and return the shard of this process.

    Raises:
        InvalidTrialError: one of them is not valid.
    """
    for name, hint in _UNSUPPORTED.items():
        if options.get(name) not in {None, False}:
            raise InvalidTrialError(f"dataloader_kwargs has the unsupported key {name}", hint=hint)
    if batch_size is not None and options.get("batch_size") is not None:
        raise InvalidTrialError(
            "the batch size is given twice: as batch_size and in dataloader_kwargs", hint="remove one of them"
        )
    chosen = batch_size if batch_size is not None else options.get("batch_size")
    return Shard(
        records=_records(dataset),
        batch_size=1 if chosen is None else positive(chosen, "batch_size"),
        drop_last=bool(options.get("drop_last", False)),
        rank=rank,
        size=size,
        limit=None if max_batches is None else positive(max_batches, "max_batches"),
    )


def positive(value: object, name: str) -> int:
    """Check that a value is a whole number of 1 or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidTrialError(
            f"torch_batch_process got {name}={value!r}", hint="set it to a whole number of 1 or more"
        )
    return value


def _records(dataset: object) -> int:
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise InvalidTrialError(
            f"torch_batch_process cannot shard a {type(dataset).__name__}",
            hint="pass a data set with __getitem__ and __len__",
        )
    return len(dataset)
