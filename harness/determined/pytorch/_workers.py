"""Random states of loader workers: written to shared memory for checkpoints, restored when a run resumes.

A worker draws from generators that torch seeds once, so random transforms of a batch depend on all batches
that this worker has read before. Reading all of those again would be too slow.
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

_CELL = 16 << 10  # bytes per cell: torch's state takes 5 kB, Python's and numpy's 6 kB
_HEAD = 8  # bytes per header number; there are two: the length of the pickled part, and the batch count


class WorkerStates:
    """The random states of each worker after each batch that it may have prefetched.

    Args:
        workers: number of loader workers.
        ahead: batches that each worker may prefetch.
        before: the states of each worker before the first batch; None uses torch's seeds.
        late: workers below this one read and drop one batch before their state is restored.
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
        """Return the states of each worker after the loader returned this number of batches."""
        counts = [len(range(worker, batches, self.workers)) for worker in range(self.workers)]
        return [
            _read(self._cells[worker, (count - 1) % self._ahead]) if count else self.before[worker]
            for worker, count in enumerate(counts)
        ]

    def newest(self) -> list[_rng.State | None]:
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
            _rng.restore(state)


class Collate:
    """The user's collate function; afterwards the worker stores its states."""

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
    """The user's worker init function; afterwards the worker restores its states."""

    def __init__(self, user: Callable[[int], None] | None, states: WorkerStates) -> None:
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


def _read(cell: torch.Tensor) -> _rng.State | None:
    length, size = _number(cell, 0), len(torch.get_rng_state())
    if not length:
        return None
    pythons, numpys = pickle.loads(bytes(cell[size : size + length].tolist()))  # noqa: S301  (written by `_write`)
    return _rng.as_state(cell[:size].clone(), pythons, numpys)
