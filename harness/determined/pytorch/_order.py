"""The order of a data set: which records are in which batch, without iterating over the batches before it.

The order depends only on the seed and the epoch, so a resumed run reads the same batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Sampler

from determined._trial.state import derive
from determined.pytorch import _rng
from determined.pytorch.samplers import shard_length

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from determined.pytorch._deal import Sharding
    from determined.pytorch._types import Untyped

_CHUNK = 1024  # batches drawn from a user's sampler per exchange of random states


class Indices(list[int]):
    """The record indices of one batch, with the seed for random transforms."""

    seed: int


@dataclass(frozen=True, slots=True)
class OwnOrder:
    """Records in sequence or shuffled."""

    records: int
    batch_size: int
    shuffle: bool
    drop_last: bool

    def __len__(self) -> int:
        whole, rest = divmod(self.records, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def batches(self, seed: int | None, offset: int, step: int) -> Iterator[list[int]]:
        """Yield every `step`-th batch of an epoch, starting at number `offset`."""
        order = self._order(seed)
        for number in range(offset, len(self), step):
            yield list(order[number * self.batch_size : (number + 1) * self.batch_size])

    def _order(self, seed: int | None) -> Sequence[int]:
        if not self.shuffle:
            return range(self.records)
        generator = torch.Generator()
        generator.manual_seed(
            seed if seed is not None else int(torch.empty((), dtype=torch.int64).random_().item())
        )
        order: list[int] = torch.randperm(self.records, generator=generator).tolist()
        return order


@dataclass(frozen=True, slots=True)
class ForeignOrder:
    """The order of a user's batch sampler.

    It draws from separate random states, seeded per epoch, so that its draws neither affect training nor
    depend on how far ahead loader workers have read.
    """

    sampler: Any  # an iterable of index lists with a length
    generators: tuple[tuple[torch.Generator, int], ...] = ()  # the user's own, with their initial seeds

    @classmethod
    def of(cls, sampler: Untyped) -> ForeignOrder:
        owners = (sampler, getattr(sampler, "sampler", None))
        generators = (getattr(owner, "generator", None) for owner in owners)
        return cls(
            sampler, tuple((g, g.initial_seed()) for g in generators if isinstance(g, torch.Generator))
        )

    def __len__(self) -> int:
        return len(self.sampler)

    def batches(self, seed: int | None, offset: int, step: int) -> Iterator[list[int]]:
        """Yield every `step`-th batch of an epoch from `offset` on; earlier ones are drawn and dropped."""
        if seed is None:
            return islice(iter(self.sampler), offset, None, step)
        for generator, own in self.generators:
            generator.manual_seed(derive(own, seed))
        return islice(_drawn_apart(self.sampler, seed), offset, None, step)


def _drawn_apart(sampler: Iterable[list[int]], seed: int) -> Iterator[list[int]]:
    with _rng.preserved():
        _rng.seed_all(seed)
        batches, state = iter(sampler), _rng.capture()
    while True:
        with _rng.preserved():
            _rng.restore(state)
            chunk = list(islice(batches, _CHUNK))
            state = _rng.capture()
        if not chunk:
            return
        yield from chunk


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """The part of the stream of batches that one process reads."""

    repeat: bool = False
    skip: int = 0  # batches of this process
    num_replicas: int = 1
    rank: int = 0


class BatchStream(Sampler[list[int]]):
    """Batch sampler for a torch DataLoader: the batches of one process, endless if repeated.

    Args:
        order: of the whole data set.
        shard: the part to read, and where to start.
        seed: None draws each epoch's order from torch's global generator, as torch does.
        mark: give each batch its own seed, for loader workers.
    """

    def __init__(
        self,
        order: OwnOrder | ForeignOrder | Sharding,
        shard: Shard,
        seed: int | None = None,
        *,
        mark: bool = False,
    ) -> None:
        self._order, self._shard, self._seed, self._mark = order, shard, seed, mark
        rank = getattr(order, "rank", 0)
        self._owner = ("rank", rank) if rank else ()

    def __len__(self) -> int:
        return shard_length(len(self._order), self._shard.num_replicas, self._shard.rank)

    def __iter__(self) -> Iterator[list[int]]:
        per_epoch, step = len(self._order), self._shard.num_replicas
        number = self._shard.skip * step + self._shard.rank
        while per_epoch and (self._shard.repeat or number < per_epoch):
            epoch, offset = divmod(number, per_epoch)
            begun = number
            for batch in self._order.batches(self._epoch_seed(epoch), offset, step):
                yield self._marked(batch, number) if self._mark else batch
                number += step
            if number == begun:
                return  # the sampler yields fewer batches than its length

    def _epoch_seed(self, epoch: int) -> int | None:
        self._set_epoch(epoch)
        return None if self._seed is None else derive(self._seed, "epoch", epoch)

    def _set_epoch(self, epoch: int) -> None:
        sampler = getattr(self._order, "sampler", None)
        for owner in (sampler, getattr(sampler, "sampler", None)):
            set_epoch: Callable[[int], object] | None = getattr(owner, "set_epoch", None)
            if set_epoch is not None:
                set_epoch(epoch)

    def _marked(self, batch: list[int], number: int) -> Indices:
        indices = Indices(batch)
        indices.seed = derive(self._seed or 0, "batch", number, *self._owner)
        return indices
