"""Watches a full disk for room."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_LEAST = 1 << 20  # bytes


class Room:
    """Whether room was made since the disk was found full."""

    def __init__(self, place: Path, *, needed: int) -> None:
        self._place = place
        self._needed = max(needed, _LEAST)
        self._before = self._free()

    def made(self) -> bool:
        return self._free() - self._before >= self._needed

    def _free(self) -> int:
        try:
            return shutil.disk_usage(self._place).free
        except OSError:
            return 0
