"""Reads the lines that a child process writes to a pipe."""

from __future__ import annotations

import math
import os
import select
import time
from typing import IO, Final

_BLOCK: Final = 1 << 16  # bytes


class LineReader:
    """Reads whole lines from a pipe, with a timeout. The pipe's own buffer must not be read beside it."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._descriptor = pipe.fileno()
        self._poll = select.poll()  # `select.select` refuses descriptors above 1,023
        self._poll.register(self._descriptor, select.POLLIN)
        self._read = b""

    def line(self, wait: float) -> bytes | None:
        """Return the next line with its end, b"" after the last one, None if none comes in `wait` seconds."""
        until = time.monotonic() + wait
        while b"\n" not in self._read:
            if not self._poll.poll(math.ceil(max(until - time.monotonic(), 0) * 1000)):
                return None
            block = os.read(self._descriptor, _BLOCK)
            if not block:
                return b""
            self._read += block
        line, end, self._read = self._read.partition(b"\n")
        return line + end
