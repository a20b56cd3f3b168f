"""The lines of a synced file that only grows, read on from where the last look ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BLOCK = 1 << 20


class LineFile:
    """Gives each whole line once. What a crash tore off is cut away by the next writer, never seen here."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def new(self) -> Iterator[bytes]:
        """Yield the lines that became whole since the last look; nothing while there is no file.

        A line at which the caller was interrupted comes again.
        """
        while lines := self._block():
            for line in lines:
                yield line + b"\n"
                self._offset += len(line) + 1

    def _block(self) -> list[bytes]:
        """The next whole lines; the file is not kept open, since whoever reads may never come back."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(_BLOCK)
                if b"\n" not in data:
                    data += file.readline()
        except FileNotFoundError:
            return []
        return data.split(b"\n")[:-1]
