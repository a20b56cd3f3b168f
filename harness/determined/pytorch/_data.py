"""Data loading: a DataLoader that can start at any batch, and helpers for batches."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
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
from determined.pytorch import _rng
from determined.pytorch._deal import shard
from determined.pytorch._order import BatchStream, ForeignOrder, Indices, OwnOrder, Shard
from determined.pytorch.samplers import DistributedBatchSampler, RepeatBatchSampler, SkipBatchSampler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from determined.pytorch._deal import Sharding
    from determined.pytorch._types import Untyped


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

    def shard(self, replicas: int, rank: int) -> Sharding:
        """Return the training shard of one process: equal numbers of batches, no record twice."""
        return shard(self._order(), replicas, rank, drop_last=self.drop_last)

    def sharded_loader(self, sharding: Sharding, skip: int, seed: int) -> TorchDataLoader[Any]:
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
        self, order: OwnOrder | ForeignOrder | Sharding, shard: Shard, seed: int
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
        if isinstance(indices, Indices):
            _rng.seed_all(indices.seed)
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
