"""Sharding of an epoch over several processes: each gets the same number of batches, and no record twice.

Batches are assigned round-robin. If the last round is incomplete, its records and those of the round before
are spread evenly over two rounds, so that no batch is larger than others or much smaller than half of them.
With `drop_last` an incomplete round is dropped, so that all batches have one size.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from determined._contract.errors import InvalidTrialError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from determined.pytorch._order import ForeignOrder, OwnOrder


@dataclass(frozen=True, kw_only=True, slots=True)
class Sharding:
    """The batches of an epoch that one process reads."""

    order: OwnOrder | ForeignOrder
    replicas: int
    rank: int
    whole: int  # rounds in which each process gets an unchanged batch
    spread: int  # rounds after those, over which the remaining records are spread

    @property
    def sampler(self) -> Any:  # noqa: ANN401  (the user's own, which may have set_epoch)
        return getattr(self.order, "sampler", None)

    def __len__(self) -> int:
        return self.whole + self.spread

    def batches(self, seed: int | None, offset: int, step: int) -> Iterator[list[int]]:
        """Yield every `step`-th batch of this process in an epoch, starting at number `offset`."""
        return islice(self._all(seed, offset), 0, None, step)

    def _all(self, seed: int | None, offset: int) -> Iterator[list[int]]:
        if offset < self.whole:
            own = self.order.batches(seed, offset * self.replicas + self.rank, self.replicas)
            yield from islice(own, self.whole - offset)
        if self.spread:
            yield from self._shares(seed)[max(0, offset - self.whole) :]

    def _shares(self, seed: int | None) -> list[list[int]]:
        """Return this process's batches of the remaining records."""
        records = _records(self.order, self.whole * self.replicas, seed)
        parts = self.spread * self.replicas
        bounds = [number * len(records) // parts for number in range(parts + 1)]
        numbers = range(self.rank, parts, self.replicas)
        return [records[bounds[number] : bounds[number + 1]] for number in numbers]


def shard(order: OwnOrder | ForeignOrder, replicas: int, rank: int, *, drop_last: bool) -> Sharding:
    """Plan the shard of one process.

    Args:
        order: of the whole data set.
        replicas: number of processes.
        rank: of this process.
        drop_last: drop an incomplete last round.

    Raises:
        InvalidTrialError: there are fewer records than processes.
    """
    whole, left = divmod(len(order), replicas)
    spread = 0
    if left and not drop_last:
        whole = max(0, whole - 1)
        records = len(_records(order, whole * replicas, 0))
        spread = min(records // replicas, 2 if len(order) > replicas else 1)
    if not whole + spread:
        raise InvalidTrialError(
            f"the training data is too small for {replicas} processes: {len(order)} batches",
            hint="use fewer slots, a smaller batch size, or drop_last=False",
        )
    return Sharding(order=order, replicas=replicas, rank=rank, whole=whole, spread=spread)


def _records(order: OwnOrder | ForeignOrder, first: int, seed: int | None) -> list[int]:
    """Return the records of all batches from number `first` on."""
    return [record for batch in order.batches(seed, first, 1) for record in batch]
