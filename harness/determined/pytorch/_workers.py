"""Random states of loader workers: left in shared memory for checkpoints, and given back when a run resumes.

A worker draws from generators that torch has seeded once, so what is random in a batch depends on every batch
that this worker has read before. Reading all of those again would cost as much as training did.
"""

from __future__ import annotations

import pickle
import random
import sys
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import get_worker_info

from determined.pytorch import _rng

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from determined.pytorch._types import Untyped

_CELL = 16 << 10  # bytes of a cell: torch's state takes 5, Python's and numpy's 6 kB
_HEAD = 8  # of these, for a number; there are two: the length of the pickled part, and batches made


class WorkerStates:
    """One cell for each batch that a worker may have read ahead: the states after it.

    Args:
        workers: of the loader.
        ahead: batches that each of them may read ahead.
        before: the states of each worker before the first batch; None where torch's seeds make them.
        late: workers below this one read one batch, which is dropped, before their state counts.
    """

    def __init__(
        self, workers: int, ahead: int, before: Sequence[_rng.State | None] = (), late: int = 0
    ) -> None:
        self.workers, self._ahead = workers, ahead + 2
        self.before = list(before) if len(before) == workers else [None] * workers
        self._late = late
        cells = torch.zeros(workers, self._ahead, _CELL, dtype=torch.uint8)
        self._cells: torch.Tensor = cells.share_memory_()  # type: ignore[no-untyped-call]

    def after(self, batches: int) -> list[_rng.State | None]:
        """The states of each worker after the loader has given so many batches."""
        counts = [len(range(worker, batches, self.workers)) for worker in range(self.workers)]
        return [
            _read(self._cells[worker, (count - 1) % self._ahead]) if count else self.before[worker]
            for worker, count in enumerate(counts)
        ]

    def newest(self) -> list[_rng.State | None]:
        """The states of each worker after the last batch that it has made."""
        counts = [[_number(cell, 1) for cell in cells] for cells in self._cells]
        return [
            _read(self._cells[worker, each.index(max(each))]) if max(each) else self.before[worker]
            for worker, each in enumerate(counts)
        ]

    def started(self, worker: int) -> None:
        """In a worker, before its first batch."""
        if worker >= self._late:
            self._put_back(worker)

    def made(self, worker: int, count: int) -> None:
        """In a worker, after it has made batch number `count` of its own."""
        if not count and worker < self._late:
            self._put_back(worker)
        _write(self._cells[worker, count % self._ahead], count + 1)

    def _put_back(self, worker: int) -> None:
        state = self.before[worker]
        if state is not None:
            _rng.restore(state)


class Collate:
    """The user's function that makes a batch; afterwards the worker leaves its states."""

    def __init__(self, inner: Callable[[Any], Any], states: WorkerStates) -> None:
        self._inner, self._states, self._count = inner, states, 0

    def __call__(self, samples: Untyped) -> Untyped:
        batch = self._inner(samples)
        info = get_worker_info()
        if info is not None:
            self._states.made(info.id, self._count)
            self._count += 1
        return batch


class Start:
    """The user's function that starts a worker; afterwards the worker takes its states."""

    def __init__(self, user: Callable[[int], None] | None, states: WorkerStates) -> None:
        self._user, self._states = user, states

    def __call__(self, worker: int) -> None:
        if self._user is not None:
            self._user(worker)
        self._states.started(worker)


def _write(cell: torch.Tensor, made: int) -> None:
    torchs, numpy = torch.get_rng_state(), sys.modules.get("numpy")
    others = pickle.dumps((random.getstate(), numpy and numpy.random.get_state()), 5)
    fits = len(torchs) + len(others) + 2 * _HEAD <= _CELL  # not with a generator that is not known
    if fits:
        cell[: len(torchs)] = torchs
        cell[len(torchs) : len(torchs) + len(others)] = torch.frombuffer(bytearray(others), dtype=torch.uint8)
    head = (len(others) if fits else 0).to_bytes(_HEAD, "big") + made.to_bytes(_HEAD, "big")
    cell[-2 * _HEAD :] = torch.frombuffer(bytearray(head), dtype=torch.uint8)


def _number(cell: torch.Tensor, which: int) -> int:
    head = bytes(cell[-2 * _HEAD :].tolist())
    return int.from_bytes(head[which * _HEAD : (which + 1) * _HEAD], "big")


def _read(cell: torch.Tensor) -> _rng.State | None:
    length, size = _number(cell, 0), len(torch.get_rng_state())
    if not length:
        return None
    pythons, numpys = pickle.loads(bytes(cell[size : size + length].tolist()))  # noqa: S301  (written by `_write`)
    return _rng.as_state(cell[:size].clone(), pythons, numpys)
