"""The two loaders of a trial: built, checked, and made to begin at any batch."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import DistributedSampler

from determined._errors import InvalidTrialError
from determined._seeds import derive
from determined.pytorch import _rng
from determined.pytorch._data import DataLoader
from determined.pytorch._trial import overrides

if TYPE_CHECKING:
    from determined._group import Group
    from determined.pytorch._context import PyTorchTrialContext
    from determined.pytorch._trial import PyTorchTrial
    from determined.pytorch._types import Untyped

_LOG = logging.getLogger(__name__)
_RETURN = "return a determined.pytorch.DataLoader from {method}"
_ALLOW = (
    "use determined.pytorch.DataLoader, or call "
    "context.experimental.disable_dataset_reproducibility_checks() in __init__"
)


class Feed(Protocol):
    """Training batches without an end."""

    epoch_length: int | None

    def begin(self, batch: int, state: _rng.State | None) -> Iterator[Any]:
        """Batches from number `batch` on; `state` is what `state()` gave when that many had been read."""

    def state(self) -> _rng.State:
        """What `begin` needs besides the number of the batch."""


class OwnFeed:
    """A `determined.pytorch.DataLoader`: any batch is found by its number."""

    def __init__(self, loader: DataLoader, seed: int, group: Group) -> None:
        self._loader, self._seed = loader, seed
        self._deal = loader.deal(group.size, group.rank) if group.size > 1 else None
        self.epoch_length: int | None = len(self._deal or loader)

    def begin(self, batch: int, state: _rng.State | None) -> Iterator[Any]:  # noqa: ARG002  (the other kind of feed needs it)
        if self._deal is not None:
            return iter(self._loader.dealt(self._deal, batch, self._seed))
        return iter(self._loader.get_data_loader(repeat=True, skip=batch, seed=self._seed))

    def state(self) -> _rng.State:
        return {}


class ForeignFeed:
    """A loader of the user's own, begun again whenever it ends.

    It is brought back to where it was by reading its current pass again, under the random state that the pass
    began with; a trial that asked for `get_initial_batch` does this itself.
    """

    def __init__(self, loader: Iterable[Any], group: Group, *, replay: bool) -> None:
        self._loader, self._replay = loader, replay
        self._iterator: Iterator[Any] = iter(())  # the first pass begins where this one ends
        self._began: _rng.State = {}
        self._read = 0  # batches of the current pass
        self.epoch_length = group.broadcast(_length(loader))

    def begin(self, batch: int, state: _rng.State | None) -> Iterator[Any]:  # noqa: ARG002  (the other kind of feed needs it)
        if state and self._replay and state["read"]:
            with _rng.kept():
                _rng.restore(state["began"])
                self._start()
                self._read = sum(1 for _ in islice(self._iterator, state["read"]))
        return self._endless()

    def state(self) -> _rng.State:
        return {"read": self._read, "began": self._began}

    def _endless(self) -> Iterator[Any]:
        while True:
            for batch in self._iterator:
                self._read += 1
                yield batch
            ended = self._read
            self._start()
            for batch in self._iterator:
                self._read += 1
                yield batch
                break
            else:
                raise InvalidTrialError(
                    "the loader of build_training_data_loader has no batches",
                    mend="check the data set that it reads"
                    + ", and that it can be iterated again" * (ended > 0),
                )

    def _start(self) -> None:
        self._began = _rng.capture()
        self._iterator, self._read = iter(self._loader), 0


@dataclass(frozen=True, slots=True)
class Loaders:
    training: Feed
    validation: TorchDataLoader[Any]


def build_loaders(trial: PyTorchTrial, context: PyTorchTrialContext, seed: int) -> Loaders:
    """Call both `build_..._data_loader` methods and check what they return.

    Args:
        trial: whose loaders are built.
        context: the trial's; knows which loaders are allowed.
        seed: of the order of the training data, and of what is random in loader workers.
    """
    group = context.distributed.group
    training = _checked(trial.build_training_data_loader(), "build_training_data_loader", context)
    validation = _checked(trial.build_validation_data_loader(), "build_validation_data_loader", context)
    feed: Feed = (
        OwnFeed(training, derive(seed, "training"), group)
        if isinstance(training, DataLoader)
        else ForeignFeed(training, group, replay=not context.asked_initial_batch)
    )
    shares = 1 if overrides(type(trial), "evaluate_full_dataset") else group.size
    if group.size > 1 and group.rank == 0:
        _warn_of_repetition(training, validation)
    return Loaders(feed, _validation(validation, derive(seed, "validation"), shares, group.rank))


def _validation(loader: Untyped, seed: int, shares: int, rank: int) -> TorchDataLoader[Any]:
    if isinstance(loader, DataLoader):
        return loader.get_data_loader(seed=seed, num_replicas=shares, rank=rank if shares > 1 else 0)
    if isinstance(loader, TorchDataLoader):
        return loader
    raise InvalidTrialError(
        f"build_validation_data_loader returned a {type(loader).__name__}",
        mend=_RETURN.format(method="build_validation_data_loader"),
    )


def _warn_of_repetition(training: Untyped, validation: Untyped) -> None:
    for loader, which in ((training, "training"), (validation, "validation")):
        sampler = getattr(loader, "sampler", None)
        if not isinstance(loader, DataLoader) and not isinstance(sampler, DistributedSampler):
            _LOG.warning(
                "the %s loader is not determined.pytorch.DataLoader: unless it shares the data itself, "
                "every process reads all of it",
                which,
            )


def _checked(loader: Untyped, method: str, context: PyTorchTrialContext) -> Untyped:
    if not isinstance(loader, DataLoader):
        _check_foreign(loader, method, context)
    if _length(loader) == 0:
        raise InvalidTrialError(
            f"the loader that {method} returned has no batches",
            mend="check the data set, its path, and drop_last with a data set smaller than one batch",
        )
    return loader


def _check_foreign(loader: object, method: str, context: PyTorchTrialContext) -> None:
    if not isinstance(loader, Iterable):
        raise InvalidTrialError(
            f"{method} returned {type(loader).__name__}, not a data loader",
            mend=_RETURN.format(method=method),
        )
    if not context.experimental.foreign_loaders:
        raise InvalidTrialError(
            f"{method} returned a {type(loader).__module__}.{type(loader).__name__}",
            mend=_ALLOW,
        )


def _length(loader: Untyped) -> int | None:
    """None when the loader cannot tell."""
    try:
        return len(loader)
    except TypeError:
        return None
