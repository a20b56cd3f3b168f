"""Stops several processes after the same batch, without communication after each one.

They share a page of memory, in which each writes how many batches it has done, at almost no cost. No rank
may run more than `AHEAD` batches ahead of rank 0. When rank 0 is asked to stop, it sets a target batch that
no rank has passed yet. The launcher reads the same page to detect hangs.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from determined._run.processes import Group

AHEAD = 2  # batches; enough to keep the queue of a GPU filled
PAGE_FILE = "page"
_TARGET = 0  # cell of the batch to stop after; its value 0: none
_FIRST, _WIDTH = 8, 8  # cells of 8 bytes; those of one rank fill a cache line
_DONE, _TICKS, _WATCHED, _BEGUN = 0, 1, 2, 3
_LONGEST_PAUSE = 0.001  # seconds between two polls of rank 0


class Page:
    """The shared memory: one cell for the target, and a row of cells for each rank.

    Args:
        path: an existing file.
        size: number of ranks.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.size = size
        with path.open("r+b") as file:
            length = 8 * (_FIRST + _WIDTH * size)
            if os.fstat(file.fileno()).st_size < length:
                file.truncate(length)
            self._memory = mmap.mmap(file.fileno(), length)
        self.cells = memoryview(self._memory).cast("q")

    def done(self, rank: int) -> int:
        """Return the index of the cell that counts a rank's batches."""
        return _FIRST + _WIDTH * rank + _DONE

    def tick(self, rank: int) -> None:
        """Record that this rank has made progress."""
        self.cells[_FIRST + _WIDTH * rank + _TICKS] += 1

    def watch(self, rank: int, *, on: bool) -> None:
        """Record whether other ranks wait for this one, which then has to make progress."""
        self.cells[_FIRST + _WIDTH * rank + _WATCHED] = int(on)

    def pulse(self) -> tuple[int, ...]:
        """Return a value that changes whenever any rank makes progress."""
        return tuple(self.cells)

    def watched(self) -> bool:
        return any(row[_WATCHED] for row in self._rows())

    def warm(self) -> bool:
        """Whether any rank has made progress since it began."""
        return any(row[_TICKS] or row[_DONE] != row[_BEGUN] for row in self._rows())

    def begin(self, rank: int, batch: int) -> None:
        """Record that this rank continues from `batch`."""
        row = _FIRST + _WIDTH * rank
        self.cells[row + _DONE] = self.cells[row + _BEGUN] = batch

    def _rows(self) -> Iterator[memoryview]:
        for rank in range(self.size):
            yield self.cells[_FIRST + _WIDTH * rank :][:_WIDTH]


class Lockstep:
    """One rank's part of the lockstep.

    Args:
        group: the processes.
        directory: of the launcher, which watches; None: no launcher.
    """

    def __init__(self, group: Group, directory: Path | None) -> None:
        self._group, self._rank = group, group.rank
        self._page = _shared_page(group, directory)
        self._own, self._chief = self._page.done(group.rank), self._page.done(0)

    def begin(self, batch: int) -> None:
        """Start at `batch`, together with all ranks."""
        cells = self._page.cells
        if self._rank == 0:
            cells[_TARGET] = 0
        self._page.begin(self._rank, batch)
        self._group.allgather(None)

    def after_batch(self, asked: Callable[[], bool]) -> Callable[[int], bool]:
        """Return a function to call after each batch with the count so far; it tells whether to stop there.

        Args:
            asked: whether rank 0 was asked to stop.
        """
        return self._leader(asked) if self._rank == 0 else self._follower()

    @contextmanager
    def watched(self, *, on: bool = True) -> Iterator[None]:
        """Mark the block as one in which other ranks wait for this one."""
        self._page.watch(self._rank, on=on)
        try:
            yield
        finally:
            self._page.watch(self._rank, on=False)

    def tick(self) -> None:
        self._page.tick(self._rank)

    def _leader(self, asked: Callable[[], bool]) -> Callable[[int], bool]:
        cells, own = self._page.cells, self._own

        def stop(done: int) -> bool:
            if asked() and not cells[_TARGET]:
                cells[_TARGET] = done + AHEAD
            cells[own] = done  # other ranks may continue only from here
            return 0 < cells[_TARGET] <= done

        return stop

    def _follower(self) -> Callable[[int], bool]:
        cells, own, chief = self._page.cells, self._own, self._chief

        def stop(done: int) -> bool:
            cells[own] = done
            if cells[chief] <= done - AHEAD:
                _wait(lambda: cells[chief] > done - AHEAD)
            return 0 < cells[_TARGET] <= done

        return stop


def _wait(ready: Callable[[], bool]) -> None:
    pause = 0.0
    while not ready():
        time.sleep(pause)
        pause = min(_LONGEST_PAUSE, pause + 0.00001)


def _shared_page(group: Group, directory: Path | None) -> Page:
    """Open the page, which rank 0 creates; without a launcher, remove the file once all have opened it."""
    path, own = directory / PAGE_FILE if directory else None, False
    if group.rank == 0:
        if path is None:
            handle, name = tempfile.mkstemp(prefix="detbuild-")
            os.close(handle)
            path, own = Path(name), True
        path.touch()
    path = group.broadcast(path)
    assert path is not None
    page = Page(path, group.size)
    group.allgather(None)
    if own:
        path.unlink()
    return page
