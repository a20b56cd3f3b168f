"""Which batches of a data set a process works on: every N-th, each record once, in the order of the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch.utils.data

from determined._errors import InvalidTrialError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_REFUSED = {
    "dataset": "pass it as dataset",
    "sampler": "records are dealt out in the order of the data set: sort the data set itself",
    "batch_sampler": "records are dealt out in the order of the data set: sort the data set itself",
    "shuffle": "leave it out: a job that is resumed has to know which records are done",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """The batches of one process."""

    records: int
    batch_size: int
    drop_last: bool
    rank: int
    size: int
    limit: int | None  # batches of a process

    @property
    def rounds(self) -> int:
        """Batches of the process that has most."""
        rounds = -(-self._batches // self.size)
        return rounds if self.limit is None else min(rounds, self.limit)

    def indices(self, begin: int) -> Iterator[list[int]]:
        """Of the records of each batch from that one on."""
        for number in range(begin, self.rounds):
            batch = number * self.size + self.rank
            if batch < self._batches:
                first = batch * self.batch_size
                yield list(range(first, min(first + self.batch_size, self.records)))

    @property
    def _batches(self) -> int:
        whole, rest = divmod(self.records, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)


class Remaining(torch.utils.data.Sampler[list[int]]):
    """As torch's loader takes it."""

    def __init__(self, share: Share, begin: int) -> None:
        self._share, self._begin = share, begin

    def __iter__(self) -> Iterator[list[int]]:
        return self._share.indices(self._begin)


def share_of(
    dataset: object,
    *,
    batch_size: int | None,
    max_batches: int | None,
    options: Mapping[str, Any],
    rank: int,
    size: int,
) -> Share:
    """Read the arguments of `torch_batch_process`.

    Raises:
        InvalidTrialError: one of them cannot be worked with.
    """
    for name, hint in _REFUSED.items():
        if options.get(name) not in {None, False}:
            raise InvalidTrialError(f"dataloader_kwargs has {name}", hint=hint)
    if batch_size is not None and options.get("batch_size") is not None:
        raise InvalidTrialError(
            "the batch size is given twice: as batch_size and in dataloader_kwargs", hint="remove one of them"
        )
    chosen = batch_size if batch_size is not None else options.get("batch_size")
    return Share(
        records=_records(dataset),
        batch_size=1 if chosen is None else positive(chosen, "batch_size"),
        drop_last=bool(options.get("drop_last", False)),
        rank=rank,
        size=size,
        limit=None if max_batches is None else positive(max_batches, "max_batches"),
    )


def positive(value: object, name: str) -> int:
    """The value, if it is a whole number of 1 or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidTrialError(
            f"torch_batch_process got {name}={value!r}", hint="make it a whole number of 1 or more"
        )
    return value


def _records(dataset: object) -> int:
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise InvalidTrialError(
            f"torch_batch_process cannot deal out a {type(dataset).__name__}",
            hint="give a data set with __getitem__ and __len__",
        )
    return len(dataset)
