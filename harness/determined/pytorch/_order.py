"""The order of a data set: which records are in which batch, without going through the batches before it.

An epoch's order depends on nothing but seed and epoch, so a resumed run reads what it would have read.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Sampler

from determined._seeds import derive
from determined.pytorch import _rng
from determined.pytorch.samplers import shard_length

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from determined.pytorch._deal import Deal
    from determined.pytorch._types import Untyped

_CHUNK = 1024  # batches drawn from a foreign sampler at a time, for one exchange of random states


class Indices(list[int]):
    """The records of one batch, and the seed of whatever is random in reading them."""

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
        """Every `step`-th batch of an epoch, from number `offset` on."""
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
    """The order of a batch sampler that the user brought.

    Its draws come from random states of their own, seeded for each epoch: they neither disturb training nor
    depend on how far ahead loader workers have read.
    """

    sampler: Any  # an iterable of index lists with a length
    generators: tuple[tuple[torch.Generator, int], ...] = ()  # the user's own, with the seeds they came with

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
        """Every `step`-th batch of an epoch, from number `offset` on; those before are drawn and dropped."""
        if seed is None:
            return islice(iter(self.sampler), offset, None, step)
        for generator, own in self.generators:
            generator.manual_seed(derive(own, seed))
        return islice(_drawn_apart(self.sampler, seed), offset, None, step)


def _drawn_apart(sampler: Iterable[list[int]], seed: int) -> Iterator[list[int]]:
    with _rng.kept():
        _rng.seed_all(seed)
        batches, state = iter(sampler), _rng.capture()
    while True:
        with _rng.kept():
            _rng.restore(state)
            chunk = list(islice(batches, _CHUNK))
            state = _rng.capture()
        if not chunk:
            return
        yield from chunk


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """Which part of the stream of batches one process reads."""

    repeat: bool = False
    skip: int = 0  # batches of this process
    num_replicas: int = 1
    rank: int = 0


class BatchStream(Sampler[list[int]]):
    """What a torch DataLoader takes as its batch sampler: the batches of one process, endless when repeated.

    Args:
        order: of the whole data set.
        share: which part of it, from where.
        seed: None draws each epoch's order from torch's global generator, as torch itself does.
        mark: give each batch a seed of its own, for loader workers.
    """

    def __init__(
        self,
        order: OwnOrder | ForeignOrder | Deal,
        share: Share,
        seed: int | None = None,
        *,
        mark: bool = False,
    ) -> None:
        self._order, self._share, self._seed, self._mark = order, share, seed, mark
        rank = getattr(order, "rank", 0)
        self._owner = ("rank", rank) if rank else ()

    def __len__(self) -> int:
        return shard_length(len(self._order), self._share.num_replicas, self._share.rank)

    def __iter__(self) -> Iterator[list[int]]:
        per_epoch, step = len(self._order), self._share.num_replicas
        number = self._share.skip * step + self._share.rank
        while per_epoch and (self._share.repeat or number < per_epoch):
            epoch, offset = divmod(number, per_epoch)
            begun = number
            for batch in self._order.batches(self._epoch_seed(epoch), offset, step):
                yield self._marked(batch, number) if self._mark else batch
                number += step
            if number == begun:
                return  # a sampler that yields fewer batches than it has promised

    def _epoch_seed(self, epoch: int) -> int | None:
        self._tell_epoch(epoch)
        return None if self._seed is None else derive(self._seed, "epoch", epoch)

    def _tell_epoch(self, epoch: int) -> None:
        sampler = getattr(self._order, "sampler", None)
        for owner in (sampler, getattr(sampler, "sampler", None)):
            set_epoch: Callable[[int], object] | None = getattr(owner, "set_epoch", None)
            if set_epoch is not None:
                set_epoch(epoch)

    def _marked(self, batch: list[int], number: int) -> Indices:
        indices = Indices(batch)
        indices.seed = derive(self._seed or 0, "batch", number, *self._owner)
        return indices
