"""Copies a worker's output unchanged into files of limited size, and to the supervisor's own output.

It never blocks, decodes or raises, whatever the worker prints and even without a reader.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import re
import threading
from typing import TYPE_CHECKING

from determined._run_info import private

if TYPE_CHECKING:
    from pathlib import Path

MARK = re.compile(rb"\n\[detbuild: (\d+) bytes of output are left out here\]\n")
_LEAST = 4096  # bytes: a smaller limit has no space for head, mark and tail
_WAITING = 64  # pieces that are queued for a slow reader


def kept(limit: int) -> int:
    """Return the bytes that a full log keeps of its head, and also of its newest output."""
    return max(limit, _LEAST) // 4


class CappedFile:
    """A log file that keeps its first quarter and its newest output.

    When it is full, the middle is cut out: the head, one line with the number of lost bytes, and the newest
    quarter are written to a new file, which replaces the old one. Followers see another inode.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self.disk_full = False
        self._path = path
        self._limit = max(limit, _LEAST)
        self._keep = kept(limit)
        self._mark = b""
        self._dropped = 0
        self._lost = 0  # because the disk was full
        self._open()

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                written = os.write(self._fd, rest[: self._limit - self._size])
            except OSError as error:
                self._note(error)
                self._lost += len(rest)
                return
            self._size += written
            rest = rest[written:]
            if self._size >= self._limit:
                self._cut()

    def close(self) -> None:
        if self._lost:
            with contextlib.suppress(OSError):
                os.write(
                    self._fd, b"\n[detbuild: %d bytes of output are lost: the disk was full]\n" % self._lost
                )
        os.close(self._fd)

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size

    def _cut(self) -> None:
        gone = self._size - 2 * self._keep - len(self._mark)
        mark = b"\n[detbuild: %d bytes of output are left out here]\n" % (self._dropped + gone)
        draft = self._path.with_name(f".{self._path.name}.tmp")
        try:
            with open(draft, "wb", opener=private) as file:
                file.write(os.pread(self._fd, self._keep, 0))
                file.write(mark)
                file.write(os.pread(self._fd, self._keep, self._size - self._keep))
            draft.replace(self._path)
        except OSError as error:
            self._note(error)
            self._forget_tail(draft)
            return
        os.close(self._fd)
        self._open()
        self._dropped += gone
        self._mark = mark

    def _forget_tail(self, draft: Path) -> None:
        """Truncate the file to its head if the disk has no space for a second file."""
        draft.unlink(missing_ok=True)
        self._dropped += self._size - self._keep - len(self._mark)
        os.ftruncate(self._fd, self._keep)
        self._size, self._mark = self._keep, b""

    def _note(self, error: OSError) -> None:
        self.disk_full |= error.errno in {errno.ENOSPC, errno.EDQUOT}


class Mirror:
    """Copies output to one of our own streams; drops what a slow reader does not accept."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._pieces: queue.Queue[bytes | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._copy, daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        with contextlib.suppress(queue.Full):
            self._pieces.put_nowait(data)

    def close(self, timeout: float) -> None:
        """Wait at most `timeout` seconds for the reader."""
        with contextlib.suppress(queue.Full):
            self._pieces.put(None, timeout=timeout)
            self._thread.join(timeout)

    def _copy(self) -> None:
        while (piece := self._pieces.get()) is not None:
            rest = memoryview(piece)
            with contextlib.suppress(OSError):  # the reader has closed its end
                while rest:
                    rest = rest[os.write(self._fd, rest) :]
