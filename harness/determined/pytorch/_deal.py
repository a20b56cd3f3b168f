"""An epoch dealt out to several processes: each gets as many batches as the others, and no record twice.

Batches are dealt like cards, one a process. Where the last ones do not go round, their records and those of
the round before are spread evenly over two rounds: no batch is larger than others, and none much smaller than
half of them. With `drop_last` what does not go round is left out: who asks for it wants batches of one size.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from determined._errors import InvalidTrialError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from determined.pytorch._order import ForeignOrder, OwnOrder


@dataclass(frozen=True, kw_only=True, slots=True)
class Deal:
    """How the batches of an epoch go round."""

    order: OwnOrder | ForeignOrder
    replicas: int
    rank: int
    whole: int  # rounds in which each process gets a batch as it is
    spread: int  # rounds after those, over which the records that are left are spread

    @property
    def sampler(self) -> Any:  # noqa: ANN401  (the user's own, which may want to know the epoch)
        return getattr(self.order, "sampler", None)

    def __len__(self) -> int:
        return self.whole + self.spread

    def batches(self, seed: int | None, offset: int, step: int) -> Iterator[list[int]]:
        """This process's batches of an epoch, from number `offset` on, every `step`-th."""
        return islice(self._all(seed, offset), 0, None, step)

    def _all(self, seed: int | None, offset: int) -> Iterator[list[int]]:
        if offset < self.whole:
            own = self.order.batches(seed, offset * self.replicas + self.rank, self.replicas)
            yield from islice(own, self.whole - offset)
        if self.spread:
            yield from self._shares(seed)[max(0, offset - self.whole) :]

    def _shares(self, seed: int | None) -> list[list[int]]:
        """This process's shares of what is left."""
        records = _records(self.order, self.whole * self.replicas, seed)
        parts = self.spread * self.replicas
        bounds = [number * len(records) // parts for number in range(parts + 1)]
        numbers = range(self.rank, parts, self.replicas)
        return [records[bounds[number] : bounds[number + 1]] for number in numbers]


def deal(order: OwnOrder | ForeignOrder, replicas: int, rank: int, *, drop_last: bool) -> Deal:
    """Plan it.

    Args:
        order: of the whole data set.
        replicas: processes.
        rank: of this one.
        drop_last: leave out what does not go round.

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
    return Deal(order=order, replicas=replicas, rank=rank, whole=whole, spread=spread)


def _records(order: OwnOrder | ForeignOrder, first: int, seed: int | None) -> list[int]:
    """Those in the batches from number `first` on."""
    return [record for batch in order.batches(seed, first, 1) for record in batch]
