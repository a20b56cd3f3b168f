"""Exponential back-off for infrastructure errors.

The controller's clock: monotonic, and replaceable in tests.

Free space and inodes on a disk that was full.
"""

from __future__ import annotations

import os
import select
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from determined._contract.checkpoints import FEW_INODES

if TYPE_CHECKING:
    from pathlib import Path

_FIRST = 0.25  # seconds
_LONGEST = 4.0
_LEAST: Final = 1 << 20  # bytes


@dataclass(slots=True)
class Backoff:
    clock: Clock
    times: int = 0
    _until: float = 0.0

    @property
    def active(self) -> bool:
        return self.times > 0 and self.clock.now() < self._until

    def failed(self) -> None:
        self._until = self.clock.now() + min(_LONGEST, _FIRST * 2.0**self.times)
        self.times = min(self.times + 1, 10)

    def reset(self) -> None:
        self.times = 0


class Clock(Protocol):
    def now(self) -> float:
        """Return seconds since an arbitrary start."""

    def wait(self, seconds: float) -> None: ...


class SystemClock:
    def now(self) -> float:
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        select.select([], [], [], seconds)


class FreeSpace:
    """A check whether the space or inodes that a full disk lacked have been freed since."""

    def __init__(self, path: Path, *, needed: int) -> None:
        self._path = path
        self._needed = max(needed, _LEAST)
        self._bytes, self._inodes = self._free()

    def available(self) -> bool:
        free, inodes = self._free()
        if self._inodes < FEW_INODES:
            return inodes >= FEW_INODES
        return free - self._bytes >= self._needed

    def _free(self) -> tuple[int, int]:
        """Return free bytes and inodes; a disk without an inode limit always has enough."""
        try:
            found = os.statvfs(self._path)
        except OSError:
            return 0, FEW_INODES
        return found.f_bavail * found.f_frsize, found.f_favail if found.f_files else FEW_INODES
