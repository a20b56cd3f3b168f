"""Free space and inodes on a disk that was full."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from determined._disk import FEW_INODES

if TYPE_CHECKING:
    from pathlib import Path

_LEAST: Final = 1 << 20  # bytes


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
