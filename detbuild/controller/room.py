"""Watches a full disk for free space, and for free inodes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from determined._disk import FEW_INODES

if TYPE_CHECKING:
    from pathlib import Path

_LEAST: Final = 1 << 20  # bytes


class FreeSpace:
    """Whether what a disk lacked when it was found full is free since."""

    def __init__(self, place: Path, *, needed: int) -> None:
        self._place = place
        self._needed = max(needed, _LEAST)
        self._bytes, self._inodes = self._free()

    def available(self) -> bool:
        free, inodes = self._free()
        if self._inodes < FEW_INODES:
            return inodes >= FEW_INODES
        return free - self._bytes >= self._needed

    def _free(self) -> tuple[int, int]:
        """Bytes and inodes; a disk that sets no limit to inodes has always enough."""
        try:
            found = os.statvfs(self._place)
        except OSError:
            return 0, FEW_INODES
        return found.f_bavail * found.f_frsize, found.f_favail if found.f_files else FEW_INODES
