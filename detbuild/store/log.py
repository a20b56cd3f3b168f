"""Reads a log of a run while it grows, and goes on at the right byte when its middle has been cut out.

The supervisor keeps a log below its limit: the head, a line that says how much is left out, and the newest
output take the place of the whole.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from detbuild.store.reading import open_written
from determined._run_info import OUTPUT_LIMIT
from determined.exec._output import MARK, kept

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

_BLOCK = 1 << 20
_LONGEST_MARK = 100


class LogFile:
    """One log, read on from where the last look ended."""

    def __init__(self, path: Path, *, limit: int = OUTPUT_LIMIT) -> None:
        self.path = path
        self._head = kept(limit)
        self._passed = 0  # bytes of output, those that were left out among them

    def blocks(self) -> Iterator[bytes]:
        """Yield what was appended since the last look; nothing while there is no file."""
        file = open_written(self.path)
        if file is None:
            return
        with file:
            left_out = self._seek(file)
            while block := file.read(_BLOCK):
                place = file.tell()
                self._passed = place if place <= self._head else place + left_out
                yield block

    def lines(self) -> Iterator[bytes]:
        """The same line by line, with their ends."""
        held: list[bytes] = []
        for block in self.blocks():
            for line in block.splitlines(keepends=True):
                held.append(line)
                if line.endswith(b"\n"):
                    yield b"".join(held)
                    held.clear()
        if held:
            yield b"".join(held)

    def _seek(self, file: BinaryIO) -> int:
        """Go to what comes next; return how much further the output is than the file, past the mark."""
        found = MARK.match(os.pread(file.fileno(), _LONGEST_MARK, self._head))
        if not found and self._passed > os.fstat(file.fileno()).st_size:
            self._passed = self._head  # the disk was full, and all but the head was given up
        gone, mark = (int(found[1]), len(found[0])) if found else (0, 0)
        if self._passed >= self._head + gone:
            file.seek(self._passed - gone + mark)
        else:  # what is left out was never seen, and the mark says so
            file.seek(min(self._passed, self._head))
        return gone - mark
