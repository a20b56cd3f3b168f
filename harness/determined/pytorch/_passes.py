"""The training order of one process: repeated passes of a batch sampler, resumable at any batch.

Samplers draw from the global random states, as in torch and Determined, so a shuffle depends on all earlier
draws. A checkpoint therefore stores the random states at the start of the current pass, and the batches
prefetched by loader workers; a resumed run draws that pass again and continues from there.
"""

from __future__ import annotations

import ctypes
import logging
import pickle
import random
import sys
from collections import deque
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import BatchSampler, RandomSampler, Sampler, SequentialSampler

from determined._contract.errors import InvalidTrialError
from determined.pytorch import _device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from determined.pytorch._device import Untyped

_LOG = logging.getLogger(__name__)
_KNOWN = (  # these draw only when a pass begins, or from their own generators
    "torch.utils.data.sampler",
    "torch.utils.data.distributed",
    "determined.pytorch.samplers",
)
_LIBRARIES = ("torch.", "determined.")  # attributes of their objects do not change
_PLAIN = (type(None), bool, int, float, str, list, tuple, dict, set, deque)
_REMEMBERED = 10_000  # random states stored per pass, 5 kB each
_LARGE = 1 << 20  # items: a larger attribute is data, not an order
_MT19937 = 2500  # bytes: 624 words and a position
_KEYS = ("cpu_rng_state", "random_rng_state", "np_rng_state")


class RandomSources:
    """The random state that samplers depend on: global states, and their own generators and attributes.

    Args:
        owners: samplers, or objects that hold samplers or generators.
    """

    def __init__(self, *owners: object) -> None:
        self._owners = list(_with_inner(owners, set()))
        self.known = all(type(owner).__module__ in _KNOWN for owner in self._owners)

    def capture(self) -> _device.State:
        """Return the current states."""
        state = {"cpu_rng_state": torch.get_rng_state()} if self.known else _device.capture()
        return {"global": state, **self.own()}

    def own(self) -> _device.State:
        """Return the current states without the global ones."""
        state: _device.State = {}
        if generators := [get() for get, _ in self._generators()]:
            state["generators"] = generators
        if not self.known:
            state["attributes"] = [_plain_attributes(owner) for owner in self._owners]
        return state

    def restore(self, state: _device.State) -> None:
        """Restore all but the global states."""
        for (_, put), value in zip(self._generators(), state.get("generators", ()), strict=False):
            put(value)
        for owner, attributes in zip(self._owners, state.get("attributes", ()), strict=False):
            for name, blob in attributes.items():
                vars(owner)[name] = pickle.loads(blob.numpy().tobytes())  # noqa: S301  (written by `_pickled`)

    def _generators(self) -> Iterator[tuple[Callable[[], Any], Callable[[Any], object]]]:
        """Yield a getter and a setter for the state of each generator of the owners."""
        seen: set[int] = set()
        for value in chain.from_iterable(list(vars(owner).values()) for owner in self._owners):
            access = _access(value)
            if access is not None and id(value) not in seen:
                seen.add(id(value))
                yield access


class ResumableBatchSampler(Sampler[list[int]]):
    """An endless batch sampler that can store its position and resume there.

    Args:
        batch_sampler: of one pass.
        ahead: batches that a loader may prefetch.
    """

    def __init__(self, batch_sampler: Untyped, ahead: int = 0) -> None:
        self._sampler = batch_sampler
        self._sources = RandomSources(batch_sampler)
        self._watched = not self._sources.known
        self._batches: Iterator[list[int]] | None = None  # of the current pass
        self._drawn = self._first = 0  # batches: drawn so far, and before the current pass
        self._start: _device.State = {}
        self._log: dict[int, _device.State] = {}  # states before draws that follow draws of other code
        self._last: tuple[Any, ...] = ()  # the random states after the latest draw
        self._recent: deque[list[int]] = deque(maxlen=ahead + 1)
        self._pending: deque[list[int]] = deque()

    def __len__(self) -> int:
        return _length(self._sampler)

    def __iter__(self) -> Iterator[list[int]]:
        while self._pending:
            yield self._pending.popleft()
        while True:
            if self._batches is None:
                self._begin_pass()
            draws = self._observed() if self._watched else self._batches
            for batch in draws or ():
                if type(batch) is not list or not batch:
                    _check(batch, self._sampler)
                self._drawn += 1
                self._recent.append(batch)
                yield batch
            self._end_pass()

    def state(self, first: int) -> _device.State:
        """Return the state from which `resume` continues with batch number `first`."""
        ahead = self._drawn - first
        return {
            "first": self._first,
            "drawn": self._drawn,
            "start": self._start,
            "log": self._log,
            "pending": list(self._recent)[-ahead:] if ahead else [],
            "now": self._sources.own(),
        }

    def resume(self, state: _device.State) -> None:
        """Draw the current pass again up to its position; call `resumed` after a loader has started."""
        self._first, self._drawn, self._start = state["first"], state["drawn"], state["start"]
        self._log = dict(state["log"])
        if self._start:
            self._draw_again()
        self._pending = deque(state["pending"])
        self._recent.extend(state["pending"])

    def resumed(self, state: _device.State) -> None:
        """Restore the samplers and their generators."""
        self._sources.restore(state["now"])

    def begin_at(self, batch: int, seed: int) -> None:
        """Start in the middle of a pass whose order is not in the checkpoint.

        Args:
            batch: number of the first batch.
            seed: for the sampler's draws in that pass.
        """
        length = _length(self._sampler) if hasattr(self._sampler, "__len__") else 0
        self._first, self._drawn = batch - (batch % length if length else batch), batch
        with _device.preserved():
            _device.seed_all(seed)
            self._start = self._sources.capture()
            self._draw_again()

    def _begin_pass(self) -> None:
        self._first, self._log = self._drawn, {}
        self._start = self._sources.capture()
        self._last = _fingerprint() if self._watched else ()
        self._batches = _iterate(self._sampler)

    def _end_pass(self) -> None:
        if self._drawn == self._first:
            raise InvalidTrialError(
                f"the batch sampler {type(self._sampler).__name__} of the training data yields no batches"
                + (" when it is iterated again" if self._first else ""),
                hint="let its __iter__ start a new pass each time, not continue an exhausted iterator",
            )
        self._batches = None

    def _draw_again(self) -> None:
        self._sources.restore(self._start)
        _device.restore(self._start["global"])
        self._batches = _iterate(self._sampler)
        for number in range(self._first, self._drawn):
            if number in self._log:
                _device.restore(self._log[number])
            next(self._batches, None)

    def _observed(self) -> Iterator[list[int]]:
        """Yield the batches of the pass; log the random states from which the sampler and other code draw."""
        assert self._batches is not None
        while True:
            before = _fingerprint()
            between = _moved(self._last, before)
            state = _device.capture() if between else {}
            batch = next(self._batches, None)
            self._last = _fingerprint()
            if batch is None:
                return
            if between and (both := between & _moved(before, self._last)):
                self._note({key: state[key] for key in both})
            yield batch

    def _note(self, state: _device.State) -> None:
        if len(self._log) < _REMEMBERED:
            self._log[self._drawn] = state
        elif len(self._log) == _REMEMBERED:
            self._log[-1] = {}
            _LOG.warning(
                "the batch sampler %s draws random numbers for each batch of a very long pass: a resumed run "
                "may read the rest of such a pass in another order",
                type(self._sampler).__name__,
            )


def _iterate(sampler: Untyped) -> Iterator[list[int]]:
    """Return an iterator over a pass; for torch's own samplers without a Python step per record."""
    inner: Any = getattr(sampler, "sampler", None)
    if type(sampler) is BatchSampler and type(inner) is SequentialSampler:
        return _sliced(sampler, lambda: range(len(inner)))
    plain = type(inner) is RandomSampler and inner.generator is None and not inner.replacement
    if type(sampler) is BatchSampler and plain and inner.num_samples == len(inner.data_source):
        return _sliced(sampler, lambda: _shuffled(inner.num_samples))
    return iter(sampler)


def _shuffled(records: int) -> Sequence[int]:
    """Draw as torch's RandomSampler does: a seed from the global generator, the rest from its own."""
    seed = int(torch.empty((), dtype=torch.int64).random_().item())
    order: list[int] = torch.randperm(records, generator=torch.Generator().manual_seed(seed)).tolist()
    return order


def _sliced(sampler: BatchSampler, draw: Callable[[], Sequence[int]]) -> Iterator[list[int]]:
    order, size = draw(), sampler.batch_size
    end = len(order) - len(order) % size if sampler.drop_last else len(order)
    for start in range(0, end, size):
        yield list(order[start : start + size])


def _length(sampler: Untyped) -> int:
    return len(sampler)


def _check(batch: Untyped, sampler: object) -> None:
    """Check that a batch is a non-empty collection of indices."""
    name = type(sampler).__name__
    if not hasattr(batch, "__iter__"):
        raise InvalidTrialError(
            f"the batch sampler {name} yields {batch!r}, not a list of indices",
            hint="yield lists, or pass it as sampler= together with batch_size=",
        )
    if hasattr(batch, "__len__") and not len(batch):
        raise InvalidTrialError(
            f"the batch sampler {name} yields a batch without indices",
            hint="leave empty batches out in its __iter__",
        )


def _with_inner(owners: Iterable[object], seen: set[int]) -> Iterator[object]:
    """Yield the owners and the samplers inside them."""
    for owner in owners:
        if hasattr(owner, "__dict__") and not isinstance(owner, type) and id(owner) not in seen:
            seen.add(id(owner))
            yield owner
            held = vars(owner)
            inner = [value for key, value in held.items() if isinstance(value, Sampler) or "sampler" in key]
            yield from _with_inner(inner, seen)


def _plain_attributes(owner: object) -> dict[str, torch.Tensor]:
    if type(owner).__module__.startswith(_LIBRARIES):
        return {}
    return {name: blob for name, value in vars(owner).items() if (blob := _pickled(value)) is not None}


def _fingerprint() -> tuple[Any, ...]:
    """Return values that change with each draw from the global generators of torch, Python and numpy."""
    _, words, gauss = random.getstate()
    numpy = sys.modules.get("numpy")
    return torch.get_rng_state(), (words[0], words[-1], gauss), numpy and _words(numpy.random)


def _words(numpy_random: Any) -> object:  # noqa: ANN401  (numpy may be absent)
    """Return numpy's state, read in place, which is a hundred times faster than `get_state`."""
    get: Callable[[], Any] = getattr(numpy_random, "get_bit_generator", lambda: None)  # since numpy 1.24
    generator = get()
    if type(generator).__name__ == "MT19937":
        return ctypes.string_at(generator.ctypes.state_address, _MT19937)
    return str(numpy_random.get_state(legacy=False))


def _moved(one: tuple[Any, ...], other: tuple[Any, ...]) -> set[str]:
    """Return which global states differ; all of them if one is unknown."""
    if not one:
        return set(_KEYS)
    same = (torch.equal(one[0], other[0]), *(a == b for a, b in zip(one[1:], other[1:], strict=True)))
    return {key for key, equal in zip(_KEYS, same, strict=True) if not equal}


def _access(value: Untyped) -> tuple[Callable[[], Any], Callable[[Any], object]] | None:
    """Return a getter and a setter for the state of a generator; None for other values."""
    if isinstance(value, torch.Generator):
        return value.get_state, lambda state: value.set_state(state.cpu())
    if isinstance(value, random.Random):
        return value.getstate, lambda state: value.setstate(_device.tuples(state))
    if hasattr(value, "bit_generator"):  # numpy's new kind
        return lambda: value.bit_generator.state, lambda state: setattr(value.bit_generator, "state", state)
    if type(value).__name__ == "RandomState":  # numpy's old kind
        return value.get_state, value.set_state
    return None


def _pickled(value: object) -> torch.Tensor | None:
    """Return the pickle of a plain attribute of a sampler; None for other values."""
    if not isinstance(value, _PLAIN) and type(value).__module__ not in {"numpy", "torch"}:
        return None
    if isinstance(value, (torch.Generator, torch.nn.Module)) or _size(value) > _LARGE:
        return None
    try:
        return torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)
    except (pickle.PicklingError, TypeError, AttributeError, RecursionError, ValueError):
        return None


def _size(value: Untyped) -> int:
    return len(value) if hasattr(value, "__len__") and getattr(value, "shape", True) != () else 0
