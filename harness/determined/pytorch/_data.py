"""Loading data: a DataLoader that can begin at any batch, and what else helps with batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import BatchSampler, Dataset, IterableDataset, Sampler, get_worker_info
from torch.utils.data import DataLoader as TorchDataLoader

from determined._errors import InvalidTrialError
from determined._seeds import derive
from determined.pytorch import _rng
from determined.pytorch._deal import deal
from determined.pytorch._order import BatchStream, ForeignOrder, Indices, OwnOrder, Share
from determined.pytorch.samplers import DistributedBatchSampler, RepeatBatchSampler, SkipBatchSampler

if TYPE_CHECKING:
    from determined.pytorch._deal import Deal
    from determined.pytorch._types import Untyped


class DataLoader:
    """torch's DataLoader with torch's arguments, made in two steps.

    The user says what to read; the harness says where to begin, and which part belongs to which process.
    Outside the harness it can be iterated, and has a length, like torch's own.
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
        _check(dataset, batch_size, batch_sampler)
        if sampler is not None and shuffle:
            raise InvalidTrialError(
                "a DataLoader got both sampler and shuffle=True", mend="leave one of them out"
            )
        self.dataset = dataset
        self.batch_size = None if batch_sampler is not None else batch_size
        self.num_workers = num_workers
        self.drop_last = drop_last
        self.generator = generator
        self.worker_init_fn = worker_init_fn
        if batch_sampler is None and sampler is not None:
            batch_sampler = BatchSampler(sampler, batch_size or 1, drop_last)
        self._order: OwnOrder | ForeignOrder = (
            ForeignOrder.of(batch_sampler)
            if batch_sampler is not None
            else OwnOrder(_length(dataset), batch_size or 1, bool(shuffle), drop_last)
        )
        self._options = {
            "num_workers": num_workers,
            "collate_fn": collate_fn,
            "pin_memory": pin_memory,
            "timeout": timeout,
            "multiprocessing_context": multiprocessing_context,
            **options,
        }

    @property
    def batch_sampler(self) -> BatchStream:
        return BatchStream(self._order, Share())

    def get_data_loader(
        self,
        repeat: bool = False,  # noqa: FBT001, FBT002  (Determined's own signature)
        skip: int = 0,
        num_replicas: int = 1,
        rank: int = 0,
        *,
        seed: int | None = None,
    ) -> TorchDataLoader[Any]:
        """Make torch's loader: repeat, take every `num_replicas`-th batch, leave out `skip` of those.

        Args:
            repeat: begin again whenever the data set ends.
            skip: batches to leave out; costs no pass over the data.
            num_replicas: processes that share the data.
            rank: of this process among them.
            seed: makes order, and what is random inside loader workers, a function of itself and of the
                batch's number. None leaves both to torch.
        """
        share = Share(repeat=repeat, skip=skip, num_replicas=num_replicas, rank=rank)
        return self._made(self._order, share, seed)

    def deal(self, replicas: int, rank: int) -> Deal:
        """How an epoch goes round `replicas` processes in training: evenly, and no record twice."""
        return deal(self._order, replicas, rank, drop_last=self.drop_last)

    def dealt(self, cards: Deal, skip: int, seed: int) -> TorchDataLoader[Any]:
        """Make torch's loader of one process: endless, from its batch `skip` on."""
        return self._made(cards, Share(repeat=True, skip=skip), seed)

    def _made(
        self, order: OwnOrder | ForeignOrder | Deal, share: Share, seed: int | None
    ) -> TorchDataLoader[Any]:
        if seed is not None and self.generator is not None:
            seed = derive(seed, self.generator.initial_seed())
        in_workers = self.num_workers > 0
        stream = BatchStream(order, share, seed, mark=in_workers and seed is not None)
        if seed is None:
            return TorchDataLoader(
                self.dataset,
                batch_sampler=stream,
                generator=self.generator,
                worker_init_fn=self.worker_init_fn,
                **self._options,
            )
        return TorchDataLoader(
            _SeededDataset(self.dataset) if in_workers else self.dataset,
            batch_sampler=stream,
            generator=torch.Generator().manual_seed(
                seed
            ),  # or else making an iterator disturbs the global one
            worker_init_fn=_WorkerStart(self.worker_init_fn) if in_workers else None,
            **self._options,
        )

    def __iter__(self) -> Iterator[Any]:
        return iter(self.get_data_loader())

    def __len__(self) -> int:
        return len(self._order)


class _SeededDataset(Dataset[Any]):
    """Reads batches in a loader worker: what is random in a batch depends on its number alone."""

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
    """Starts a loader worker: user code there finds its own data set in `get_worker_info()`."""

    def __init__(self, user: Callable[[int], None] | None) -> None:
        self._user = user

    def __call__(self, worker: int) -> None:
        info = get_worker_info()
        if info is not None and isinstance(info.dataset, _SeededDataset):
            object.__setattr__(info, "dataset", info.dataset.dataset)  # torch keeps it frozen
        if self._user is not None:
            self._user(worker)


def adapt_batch_sampler(
    batch_sampler: Sampler[list[int]],
    repeat: bool = False,  # noqa: FBT001, FBT002  (Determined's own signature)
    skip: int = 0,
    num_replicas: int = 1,
    rank: int = 0,
) -> Sampler[list[int]]:
    """Repeat, then share, then skip: the order in which nothing is lost."""
    if repeat:
        batch_sampler = RepeatBatchSampler(batch_sampler)
    if num_replicas > 1:
        batch_sampler = DistributedBatchSampler(batch_sampler, num_replicas, rank)
    return SkipBatchSampler(batch_sampler, skip) if skip else batch_sampler


def data_length(data: object) -> int:
    """Records in a batch: the length of its first array, looking into dicts, lists and tuples.

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
        f"a batch is a {type(data).__name__} without an array, so its length is not known",
        mend="override get_batch_length in your trial",
    )


def _check(dataset: object, batch_size: int | None, batch_sampler: object) -> None:
    own = "return a torch DataLoader, after context.experimental.disable_dataset_reproducibility_checks()"
    if isinstance(dataset, IterableDataset):
        raise InvalidTrialError("determined.pytorch.DataLoader cannot read an IterableDataset", mend=own)
    if batch_size is None and batch_sampler is None:
        raise InvalidTrialError("determined.pytorch.DataLoader needs batches: batch_size is None", mend=own)
    if batch_size is not None and batch_size < 1:
        raise InvalidTrialError(f"batch_size of a DataLoader is {batch_size}", mend="make it 1 or more")
    if not isinstance(dataset, Sized) and batch_sampler is None:
        raise InvalidTrialError(
            f"the data set {type(dataset).__name__} has no length",
            mend="give it a __len__, or pass a batch_sampler",
        )


def _length(data: Untyped) -> int:
    return len(data)
