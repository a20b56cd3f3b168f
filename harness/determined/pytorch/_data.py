"""Data loading: a DataLoader that can start at any batch, alone or as one of several processes.

The order of a data set depends only on the seed and the epoch, so a resumed run reads the same batches
without reading those before them.

Several processes share an epoch: each gets the same number of batches, and no record twice. Batches are
assigned round-robin. If the last round is incomplete, its records and those of the round before are spread
evenly over two rounds, so that no batch is larger than others or much smaller than half of them. With
`drop_last` an incomplete round is dropped, so that all batches have one size.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import (
    BatchSampler,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    default_collate,
    get_worker_info,
)
from torch.utils.data import DataLoader as TorchDataLoader

from determined._contract.errors import InvalidTrialError
from determined._trial.state import derive
from determined.pytorch import _device
from determined.pytorch.samplers import (
    DistributedBatchSampler,
    RepeatBatchSampler,
    SkipBatchSampler,
    shard_length,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from determined.pytorch._device import Untyped

_CHUNK = 1024  # batches drawn from a user's sampler per exchange of random states


class DataLoader:
    """torch's DataLoader with torch's arguments, created in two steps.

    The user defines what to read; the harness sets the start and the shard of each process. Outside the
    harness it can be iterated and has a length, like torch's own.
    """

    def __init__(  # noqa: PLR0913, PLR0917  (torch's own signature)
        self,
        dataset: Dataset[Any],
        batch_size: int | None = 1,
        shuffle: bool | None = False,  # noqa: FBT001, FBT002  (Determined's own signature)
        sampler: Untyped = None,
        batch_sampler: Untyped = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,  # noqa: FBT001, FBT002  (Determined's own signature)
        drop_last: bool = False,  # noqa: FBT001, FBT002  (Determined's own signature)
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: Untyped = None,
        generator: torch.Generator | None = None,
        **options: Untyped,
    ) -> None:
        self._own = sampler is None and batch_sampler is None
        self._shuffle = bool(shuffle)
        _check(dataset, batch_size, sampler, batch_sampler, shuffle=self._shuffle)
        self.dataset = dataset
        self.num_workers, self.timeout, self.pin_memory = num_workers, timeout, pin_memory
        self.drop_last = drop_last
        self.generator = generator
        self.collate_fn = default_collate if collate_fn is None else collate_fn
        self.worker_init_fn = worker_init_fn
        self.multiprocessing_context = multiprocessing_context
        self.prefetch_factor = options.pop("prefetch_factor", None)
        if self.prefetch_factor is None and num_workers:
            self.prefetch_factor = 2  # torch's own default
        self.persistent_workers = options.pop("persistent_workers", False)
        self._options = options
        if sampler is None and batch_sampler is None:
            shuffled = self._shuffle and length_of(dataset)
            sampler = RandomSampler(dataset, generator=generator) if shuffled else SequentialSampler(dataset)  # type: ignore[arg-type]
        self.sampler = sampler
        self.batch_size = None if batch_sampler is not None else batch_size
        with _torch_errors():
            if batch_sampler is None:
                batch_sampler = BatchSampler(sampler, batch_size or 1, drop_last)
            self.batch_sampler = batch_sampler
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch warns again when the loader is used
                self.get_data_loader()  # let torch check its arguments here, at the user's line

    def get_data_loader(
        self,
        repeat: bool = False,  # noqa: FBT001, FBT002  (Determined's own signature)
        skip: int = 0,
        num_replicas: int = 1,
        rank: int = 0,
    ) -> TorchDataLoader[Any]:
        """Return torch's loader of every `num_replicas`-th batch, without the first `skip` of those.

        Args:
            repeat: start again whenever the data set ends.
            skip: batches to skip.
            num_replicas: number of processes that share the data.
            rank: of this process.
        """
        adapted = adapt_batch_sampler(self.batch_sampler, repeat, skip, num_replicas, rank)
        return self.loader(adapted, generator=self.generator)

    def loader(
        self, batch_sampler: Sampler[list[int]], generator: torch.Generator | None, **changed: Untyped
    ) -> TorchDataLoader[Any]:
        """Return torch's loader over another batch sampler, with some options changed."""
        options: dict[str, Any] = {
            "num_workers": self.num_workers,
            "collate_fn": self.collate_fn,
            "pin_memory": self.pin_memory,
            "timeout": self.timeout,
            "worker_init_fn": self.worker_init_fn,
            "multiprocessing_context": self.multiprocessing_context,
            "prefetch_factor": self.prefetch_factor,
            "persistent_workers": self.persistent_workers,
            **self._options,
            **changed,
        }
        dataset = options.pop("dataset", self.dataset)
        return TorchDataLoader(dataset, batch_sampler=batch_sampler, generator=generator, **options)

    def shard(self, replicas: int, rank: int) -> _Sharding:
        """Return the training shard of one process: equal numbers of batches, no record twice."""
        return shard(self._order(), replicas, rank, drop_last=self.drop_last)

    def sharded_loader(self, sharding: _Sharding, skip: int, seed: int) -> TorchDataLoader[Any]:
        """Return torch's endless loader of one process, starting at its batch `skip`."""
        return self._seeded(sharding, Shard(repeat=True, skip=skip), seed)

    def strided_loader(self, replicas: int, rank: int, seed: int) -> TorchDataLoader[Any]:
        """Return torch's loader of every `replicas`-th batch; the order depends only on the seed."""
        return self._seeded(self._order(), Shard(num_replicas=replicas, rank=rank), seed)

    def _order(self) -> OwnOrder | ForeignOrder:
        if self._own:
            return OwnOrder(_length(self.dataset), self.batch_size or 1, self._shuffle, self.drop_last)
        if length_of(self.batch_sampler) is None:
            raise InvalidTrialError(
                f"several processes cannot share the batches of {type(self.batch_sampler).__name__}: "
                "it has no length",
                hint="give the sampler a __len__, or train with one slot",
            )
        return ForeignOrder.of(self.batch_sampler)

    def _seeded(
        self, order: OwnOrder | ForeignOrder | _Sharding, shard: Shard, seed: int
    ) -> TorchDataLoader[Any]:
        if self.generator is not None:
            seed = derive(seed, self.generator.initial_seed())
        in_workers = self.num_workers > 0
        changed: dict[str, Any] = {}
        if in_workers:
            changed = {
                "dataset": _SeededDataset(self.dataset),
                "worker_init_fn": _WorkerStart(self.worker_init_fn),
            }
        return self.loader(
            BatchStream(order, shard, seed, mark=in_workers),
            # without a generator, creating an iterator draws from the global one
            generator=torch.Generator().manual_seed(seed),
            **changed,
        )

    def __iter__(self) -> Iterator[Any]:
        return iter(self.get_data_loader())

    def __len__(self) -> int:
        return len(self.batch_sampler)


class _SeededDataset(Dataset[Any]):
    """Reads batches in a loader worker, seeded by the batch number alone."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __getitems__(self, indices: list[int]) -> list[Any]:
        if isinstance(indices, _Indices):
            _device.seed_all(indices.seed)
        inner = getattr(self.dataset, "__getitems__", None)
        return list(inner(indices)) if inner else [self.dataset[index] for index in indices]

    def __len__(self) -> int:
        return _length(self.dataset)


class _WorkerStart:
    """Worker init function that puts the user's own data set into `get_worker_info()`."""

    def __init__(self, user: Callable[[int], None] | None) -> None:
        self._user = user

    def __call__(self, worker: int) -> None:
        info = get_worker_info()
        if info is not None and isinstance(info.dataset, _SeededDataset):
            object.__setattr__(info, "dataset", info.dataset.dataset)  # the object is frozen
        if self._user is not None:
            self._user(worker)


def adapt_batch_sampler(
    batch_sampler: Sampler[list[int]],
    repeat: bool = False,  # noqa: FBT001, FBT002  (Determined's own signature)
    skip: int = 0,
    num_replicas: int = 1,
    rank: int = 0,
) -> Sampler[list[int]]:
    """Repeat, then shard, then skip: in this order no batch is lost."""
    if repeat:
        batch_sampler = RepeatBatchSampler(batch_sampler)
    if num_replicas > 1:
        batch_sampler = DistributedBatchSampler(batch_sampler, num_replicas, rank)
    return SkipBatchSampler(batch_sampler, skip) if skip else batch_sampler


def data_length(data: object) -> int:
    """Return the number of records in a batch: the length of its first array, also in nested containers.

    Raises:
        InvalidTrialError: there is no array.
    """
    if isinstance(data, torch.Tensor) or hasattr(data, "__array__"):
        return _length(data)
    if isinstance(data, dict) and data:
        return data_length(next(iter(data.values())))
    if isinstance(data, (list, tuple)) and data:
        first = data[0]
        return len(data) if isinstance(first, (str, bytes, int, float)) else data_length(first)
    raise InvalidTrialError(
        f"a batch is a {type(data).__name__} without an array, so its length is unknown",
        hint="override get_batch_length in your trial",
    )


@contextmanager
def _torch_errors() -> Iterator[None]:
    """Convert torch's argument errors."""
    try:
        yield
    except (ValueError, TypeError, AssertionError, AttributeError) as error:
        raise InvalidTrialError(
            f"invalid DataLoader arguments: {error}",
            hint="see the arguments of torch.utils.data.DataLoader",
        ) from error


def _check(
    dataset: object, batch_size: object, sampler: object, batch_sampler: object, *, shuffle: bool
) -> None:
    own = "return a torch DataLoader, after context.experimental.disable_dataset_reproducibility_checks()"
    if isinstance(dataset, IterableDataset):
        raise InvalidTrialError("determined.pytorch.DataLoader cannot read an IterableDataset", hint=own)
    if not any(callable(getattr(dataset, name, None)) for name in ("__getitem__", "__getitems__")):
        raise InvalidTrialError(
            f"the data set {type(dataset).__name__} cannot be indexed",
            hint="give it a __getitem__, or " + own,
        )
    if sampler is not None and (shuffle or batch_sampler is not None):
        raise InvalidTrialError(
            f"DataLoader got both sampler and {'shuffle=True' if shuffle else 'batch_sampler'}",
            hint="remove one of them",
        )
    if batch_sampler is not None:
        _check_order(batch_sampler, "batch_sampler")
        return
    if batch_size is None:
        raise InvalidTrialError("determined.pytorch.DataLoader needs batches: batch_size is None", hint=own)
    if not isinstance(batch_size, int) or batch_size < 1:
        raise InvalidTrialError(
            f"DataLoader got batch_size={batch_size!r}", hint="set it to a whole number of 1 or more"
        )
    if sampler is not None:
        _check_order(sampler, "sampler")
    elif length_of(dataset) is None:
        raise InvalidTrialError(
            f"the data set {type(dataset).__name__} has no length",
            hint="give it a __len__, or pass a sampler or batch_sampler",
        )


def _check_order(order: object, what: str) -> None:
    if not hasattr(order, "__iter__") and not hasattr(order, "__getitem__"):
        raise InvalidTrialError(
            f"the {what} {type(order).__name__} of a DataLoader is not iterable",
            hint="give it an __iter__ that yields "
            + ("indices" if what == "sampler" else "lists of indices")
            + (", and pass an instance, not the class" if isinstance(order, type) else ""),
        )


def length_of(data: Untyped) -> int | None:
    """Return the length, or None if there is none.

    Raises:
        InvalidTrialError: `__len__` fails.
    """
    try:
        return len(data)
    except (TypeError, NotImplementedError):
        return None
    except Exception as error:
        raise InvalidTrialError(
            f"the length of {type(data).__name__} failed with {type(error).__name__}: {error}",
            hint="return a whole number of 0 or more from its __len__",
        ) from error


def _length(data: Untyped) -> int:
    return len(data)


class _Indices(list[int]):
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
    with _device.preserved():
        _device.seed_all(seed)
        batches, state = iter(sampler), _device.capture()
    while True:
        with _device.preserved():
            _device.restore(state)
            chunk = list(islice(batches, _CHUNK))
            state = _device.capture()
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
        order: OwnOrder | ForeignOrder | _Sharding,
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

    def _marked(self, batch: list[int], number: int) -> _Indices:
        indices = _Indices(batch)
        indices.seed = derive(self._seed or 0, "batch", number, *self._owner)
        return indices


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sharding:
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


def shard(order: OwnOrder | ForeignOrder, replicas: int, rank: int, *, drop_last: bool) -> _Sharding:
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
    return _Sharding(order=order, replicas=replicas, rank=rank, whole=whole, spread=spread)


def _records(order: OwnOrder | ForeignOrder, first: int, seed: int | None) -> list[int]:
    """Return the records of all batches from number `first` on."""
    return [record for batch in order.batches(seed, first, 1) for record in batch]
