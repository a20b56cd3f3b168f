"""Build and check the two loaders of a trial, and start them at any batch.

A loader worker draws from generators that torch seeds once, so random transforms of a batch depend on all
batches that this worker has read before. Reading all of those again would be too slow: workers write their
random states to shared memory for checkpoints, and restore them when a run resumes.
"""

from __future__ import annotations

import itertools
import logging
import pickle
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, repeat
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import DistributedSampler, get_worker_info

from determined._contract.errors import InvalidTrialError
from determined._run.outcome import defined_at
from determined._trial.state import derive
from determined.pytorch import _device
from determined.pytorch._data import DataLoader, length_of
from determined.pytorch._passes import RandomSources, ResumableBatchSampler
from determined.pytorch._trial import overrides
from determined.pytorch.samplers import RepeatBatchSampler, RepeatSampler

if TYPE_CHECKING:
    from determined._run.processes import Group
    from determined.pytorch._context import PyTorchTrialContext
    from determined.pytorch._device import Untyped
    from determined.pytorch._trial import PyTorchTrial

_LOG = logging.getLogger(__name__)
_ENDLESS = (RepeatSampler, RepeatBatchSampler, itertools.cycle, itertools.count)
_INFINITE = sys.maxsize // 2  # such a length stands for infinity
_RETURN = "return a determined.pytorch.DataLoader from {method}"
_ALLOW = (
    "use determined.pytorch.DataLoader, or call "
    "context.experimental.disable_dataset_reproducibility_checks() in __init__"
)
_CELL = 16 << 10  # bytes per cell: torch's state takes 5 kB, Python's and numpy's 6 kB
_HEAD = 8  # bytes per header number; there are two: the length of the pickled part, and the batch count


class _Feed(Protocol):
    """An endless stream of training batches."""

    epoch_length: int | None

    def begin(self, batch: int, state: _device.State | None) -> Iterator[Any]:
        """Return the batches from number `batch` on; `state` is the result of `state(batch)`, if any.

        A new run draws the same random numbers as torch's `iter`; a resumed one restores the random states
        afterwards.
        """

    def state(self, batch: int) -> _device.State:
        """Return the state from which `begin` continues with `batch`, after all earlier ones were read."""


class _OwnFeed:
    """A `determined.pytorch.DataLoader` in one process, read as in torch and Determined."""

    def __init__(self, loader: DataLoader, seed: int) -> None:
        self._loader, self._seed = loader, seed
        self._workers = loader.num_workers
        self._ahead = self._workers * (loader.prefetch_factor or 0)
        self._passes = ResumableBatchSampler(loader.batch_sampler, self._ahead + self._workers)
        self._made: _device.State = {}  # random states when torch made its iterator
        self._first = 0  # the first batch of this iterator
        self._states: _WorkerStates | None = None
        self.epoch_length = length_of(loader.batch_sampler)

    def begin(self, batch: int, state: _device.State | None) -> Iterator[Any]:
        late = batch % self._workers if self._workers else 0  # the same worker must read a batch in every run
        self._first = batch - late
        if state and "order" in state:
            return self._resumed(state, late)
        if batch:
            _LOG.info(
                "the checkpoint has no order of the current pass; the rest of it is read in a new order"
            )
            self._passes.begin_at(self._first, derive(self._seed, "epoch", batch))
        return _without(late, self._iterator([], 0))

    def state(self, batch: int) -> _device.State:
        late = batch % self._workers if self._workers else 0
        state: _device.State = {"order": self._passes.state(batch - late)}
        if self._states is not None:
            state["made"], state["workers"] = self._made, self._states.after(batch - self._first)
        return state

    def _resumed(self, state: _device.State, late: int) -> Iterator[Any]:
        with _device.preserved():
            self._passes.resume(state["order"])
            if "made" in state:
                _device.restore(state["made"]["global"])
                self._generator.restore(state["made"])
            iterator = _without(late, self._iterator(state.get("workers", []), late))
        self._passes.resumed(state["order"])
        return iterator

    def _iterator(self, workers: Sequence[_device.State | None], late: int) -> Iterator[Any]:
        changed: dict[str, Any] = {}
        if self._workers:
            self._made = {"global": {"cpu_rng_state": torch.get_rng_state()}, **self._generator.own()}
            self._states = states = _WorkerStates(self._workers, self._ahead // self._workers, workers, late)
            changed["collate_fn"] = _Collate(self._loader.collate_fn, states)
            if workers:
                changed["worker_init_fn"] = _Start(self._loader.worker_init_fn, states)
        return iter(self._loader.loader(self._passes, self._loader.generator, **changed))

    @property
    def _generator(self) -> RandomSources:
        return RandomSources(self._loader)


class _ShardedFeed:
    """A `determined.pytorch.DataLoader` sharded over several processes, with random access to batches."""

    def __init__(self, loader: DataLoader, seed: int, group: Group) -> None:
        self._loader, self._seed = loader, seed
        self._sharding = loader.shard(group.size, group.rank)
        self.epoch_length: int | None = len(self._sharding)

    def begin(self, batch: int, state: _device.State | None) -> Iterator[Any]:  # noqa: ARG002  (other feeds need it)
        return iter(self._loader.sharded_loader(self._sharding, batch, self._seed))

    def state(self, batch: int) -> _device.State:  # noqa: ARG002  (other feeds need it)
        return {}


class _ForeignFeed:
    """A user's own loader, restarted whenever it ends.

    A resumed run reads its current pass again, with the random states from the start of the pass. A trial
    that called `get_initial_batch` skips batches itself.
    """

    def __init__(self, loader: Iterable[Any], group: Group, *, replay: bool) -> None:
        self._loader, self._replay = loader, replay
        samplers = [getattr(loader, name, None) for name in ("batch_sampler", "sampler")]
        self._sources = RandomSources(loader, *samplers)
        self._iterator: Iterator[Any] = iter(())
        self._began: _device.State = {}
        self._read = 0  # batches of the current pass
        self.epoch_length = group.broadcast(length_of(loader))

    def begin(self, batch: int, state: _device.State | None) -> Iterator[Any]:  # noqa: ARG002  (other feeds need it)
        if state and self._replay and "began" in state:
            with _device.preserved():
                self._sources.restore(state["began"])
                _device.restore(state["began"]["global"])
                self._start()
                self._read = sum(1 for _ in islice(self._iterator, state["read"]))
        else:
            self._start()
        return self._endless()

    def state(self, batch: int) -> _device.State:  # noqa: ARG002  (other feeds need it)
        return {"read": self._read, "began": self._began}

    def _endless(self) -> Iterator[Any]:
        for first in chain((True,), repeat(False)):
            for batch in self._iterator:
                self._read += 1
                yield batch
            if not self._read:
                raise InvalidTrialError(
                    "the loader of build_training_data_loader has no batches",
                    hint="check its data set" + ", and that it can be iterated again" * (not first),
                )
            self._start()

    def _start(self) -> None:
        self._began = self._sources.capture()
        self._iterator, self._read = iter(self._loader), 0


def _without(count: int, batches: Iterator[Any]) -> Iterator[Any]:
    for _ in range(count):
        next(batches)
    return batches


@dataclass(frozen=True, slots=True)
class Loaders:
    training: _Feed
    validation: TorchDataLoader[Any]
    validation_workers: _WorkerStates | None = None  # of persistent workers

    def begin(self, batch: int, state: _device.State | None) -> Iterator[Any]:
        """Return the training batches from number `batch` on, and restore the validation loader."""
        found = (state or {}).get("validation")
        if found:
            RandomSources(self.validation).restore(found)
            if found["begun"]:  # persistent workers draw their seed only once
                self.validation.generator = torch.Generator()
            if self.validation_workers is not None and found["workers"]:
                self.validation_workers.before[:] = found["workers"]
        return self.training.begin(batch, state)

    def state(self, batch: int) -> _device.State:
        """Return the state from which `begin` continues with `batch`."""
        stays = self.validation_workers
        own: _device.State = {
            "begun": getattr(self.validation, "_iterator", None) is not None,
            "workers": stays.newest() if stays else [],
            **RandomSources(self.validation).own(),
        }
        needed = own["begun"] or "generators" in own or any(own.get("attributes", ()))
        return {**self.training.state(batch), **({"validation": own} if needed else {})}


def build_loaders(trial: PyTorchTrial, context: PyTorchTrialContext, seed: int) -> Loaders:
    """Call both `build_..._data_loader` methods and check their results.

    Args:
        trial: whose loaders are built.
        context: of the trial.
        seed: for the order of the training data and the loader workers.
    """
    group = context.distributed.group
    training = _checked(trial.build_training_data_loader, context)
    validation = _checked(trial.build_validation_data_loader, context)
    feed: _Feed
    if not isinstance(training, DataLoader):
        feed = _ForeignFeed(training, group, replay=not context.asked_initial_batch)
    elif group.size > 1:
        feed = _ShardedFeed(training, derive(seed, "training"), group)
    else:
        feed = _OwnFeed(training, derive(seed, "training"))
    shares = 1 if overrides(type(trial), "evaluate_full_dataset") else group.size
    if group.size > 1 and group.rank == 0:
        _warn_of_unsharded_loaders(training, validation)
    if not overrides(type(trial), "evaluate_full_dataset"):  # which may stop by itself
        _check_validation_ends(validation, trial.build_validation_data_loader)
    if isinstance(validation, DataLoader) and shares > 1:
        return Loaders(feed, validation.strided_loader(shares, group.rank, derive(seed, "validation")))
    return Loaders(feed, *_validation(validation, trial.build_validation_data_loader))


def _validation(loader: Untyped, method: object) -> tuple[TorchDataLoader[Any], _WorkerStates | None]:
    if isinstance(loader, DataLoader) and loader.persistent_workers:
        states = _WorkerStates(loader.num_workers, loader.prefetch_factor or 0)
        collate, start = _Collate(loader.collate_fn, states), _Start(loader.worker_init_fn, states)
        options = {"collate_fn": collate, "worker_init_fn": start}
        return loader.loader(loader.batch_sampler, loader.generator, **options), states
    if isinstance(loader, DataLoader):
        return loader.get_data_loader(), None
    if isinstance(loader, TorchDataLoader):
        return loader, None
    raise InvalidTrialError(
        f"{defined_at(method)}: build_validation_data_loader returned a {type(loader).__name__}",
        hint=_RETURN.format(method="build_validation_data_loader"),
    )


def _warn_of_unsharded_loaders(training: Untyped, validation: Untyped) -> None:
    for loader, which in ((training, "training"), (validation, "validation")):
        sampler = getattr(loader, "sampler", None)
        if not isinstance(loader, DataLoader) and not isinstance(sampler, DistributedSampler):
            _LOG.warning(
                "the %s loader is not a determined.pytorch.DataLoader: unless it shards the data itself, "
                "every process reads all of it",
                which,
            )


def _checked(build: Callable[[], Untyped], context: PyTorchTrialContext) -> Untyped:
    loader, method = build(), build.__name__
    where = f"{defined_at(build)}: "
    if not isinstance(loader, DataLoader):
        _check_foreign(loader, where, method, context)
    if length_of(loader if not isinstance(loader, DataLoader) else loader.batch_sampler) == 0:
        raise InvalidTrialError(
            f"{where}the loader that {method} returned has no batches",
            hint="check the path and the size of the data set: with drop_last it needs one full batch",
        )
    return loader


def _check_foreign(loader: object, where: str, method: str, context: PyTorchTrialContext) -> None:
    if not isinstance(loader, Iterable):
        raise InvalidTrialError(
            f"{where}{method} returned {type(loader).__name__}, not a data loader",
            hint=_RETURN.format(method=method),
        )
    if not context.experimental.foreign_loaders:
        raise InvalidTrialError(
            f"{where}{method} returned a {type(loader).__module__}.{type(loader).__name__}",
            hint=_ALLOW,
        )


def _check_validation_ends(loader: Untyped, method: object) -> None:
    """Raise an error if validation data is known to be endless."""
    found: list[Any] = [loader]
    for owner in found:  # grows during the loop
        held = getattr(owner, "__dict__", {})
        found += [held[name] for name in ("batch_sampler", "sampler", "_inner") if name in held]
    endless = next(
        (owner for owner in found if isinstance(owner, _ENDLESS) or _has_infinite_length(owner)), None
    )
    if endless is not None:
        raise InvalidTrialError(
            f"{defined_at(method)}: the validation data never ends: {type(endless).__name__} repeats it",
            hint="return a loader from build_validation_data_loader that ends after one pass",
        )


def _has_infinite_length(owner: Untyped) -> bool:
    """Whether a length stands for infinity."""
    return not isinstance(owner, DataLoader) and (length_of(owner) or 0) >= _INFINITE


class _WorkerStates:
    """The random states of each worker after each batch that it may have prefetched.

    Args:
        workers: number of loader workers.
        ahead: batches that each worker may prefetch.
        before: the states of each worker before the first batch; None uses torch's seeds.
        late: workers below this one read and drop one batch before their state is restored.
    """

    def __init__(
        self, workers: int, ahead: int, before: Sequence[_device.State | None] = (), late: int = 0
    ) -> None:
        self.workers, self._ahead = workers, ahead + 2
        self.before = list(before) if len(before) == workers else [None] * workers
        self._late = late
        cells = torch.zeros(workers, self._ahead, _CELL, dtype=torch.uint8)
        self._cells: torch.Tensor = cells.share_memory_()  # type: ignore[no-untyped-call]

    def after(self, batches: int) -> list[_device.State | None]:
        """Return the states of each worker after the loader returned this number of batches."""
        counts = [len(range(worker, batches, self.workers)) for worker in range(self.workers)]
        return [
            _read(self._cells[worker, (count - 1) % self._ahead]) if count else self.before[worker]
            for worker, count in enumerate(counts)
        ]

    def newest(self) -> list[_device.State | None]:
        """Return the states of each worker after its last batch."""
        counts = [[_number(cell, 1) for cell in cells] for cells in self._cells]
        return [
            _read(self._cells[worker, each.index(max(each))]) if max(each) else self.before[worker]
            for worker, each in enumerate(counts)
        ]

    def started(self, worker: int) -> None:
        """Restore the states of a worker before its first batch; called in the worker."""
        if worker >= self._late:
            self._put_back(worker)

    def made(self, worker: int, count: int) -> None:
        """Store the states of a worker after its batch number `count`; called in the worker."""
        if not count and worker < self._late:
            self._put_back(worker)
        _write(self._cells[worker, count % self._ahead], count + 1)

    def _put_back(self, worker: int) -> None:
        state = self.before[worker]
        if state is not None:
            _device.restore(state)


class _Collate:
    """The user's collate function; afterwards the worker stores its states."""

    def __init__(self, inner: Callable[[Any], Any], states: _WorkerStates) -> None:
        self._inner, self._states, self._count = inner, states, 0

    def __call__(self, samples: Untyped) -> Untyped:
        batch = self._inner(samples)
        info = get_worker_info()
        if info is not None:
            self._states.made(info.id, self._count)
            self._count += 1
        return batch


class _Start:
    """The user's worker init function; afterwards the worker restores its states."""

    def __init__(self, user: Callable[[int], None] | None, states: _WorkerStates) -> None:
        self._user, self._states = user, states

    def __call__(self, worker: int) -> None:
        if self._user is not None:
            self._user(worker)
        self._states.started(worker)


def _write(cell: torch.Tensor, made: int) -> None:
    torchs, numpy = torch.get_rng_state(), sys.modules.get("numpy")
    others = pickle.dumps((random.getstate(), numpy and numpy.random.get_state()), 5)
    fits = len(torchs) + len(others) + 2 * _HEAD <= _CELL  # False for an unknown kind of generator
    if fits:
        cell[: len(torchs)] = torchs
        cell[len(torchs) : len(torchs) + len(others)] = torch.frombuffer(bytearray(others), dtype=torch.uint8)
    head = (len(others) if fits else 0).to_bytes(_HEAD, "big") + made.to_bytes(_HEAD, "big")
    cell[-2 * _HEAD :] = torch.frombuffer(bytearray(head), dtype=torch.uint8)


def _number(cell: torch.Tensor, which: int) -> int:
    head = bytes(cell[-2 * _HEAD :].tolist())
    return int.from_bytes(head[which * _HEAD : (which + 1) * _HEAD], "big")


def _read(cell: torch.Tensor) -> _device.State | None:
    length, size = _number(cell, 0), len(torch.get_rng_state())
    if not length:
        return None
    pythons, numpys = pickle.loads(bytes(cell[size : size + length].tolist()))  # noqa: S301  (written by `_write`)
    return _device.as_state(cell[:size].clone(), pythons, numpys)
