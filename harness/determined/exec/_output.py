"""Where a worker's output goes: byte for byte into files of limited size, and on to whoever may be looking.

Nothing here ever waits, decodes or raises for what the worker prints or for a reader that is away.
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
_LEAST = 4096  # bytes: a smaller limit has no room for head, mark and tail
_WAITING = 64  # pieces that may wait for a slow reader


def kept(limit: int) -> int:
    """Bytes that are left of the head, and of the newest output, of a log that grew to its limit."""
    return max(limit, _LEAST) // 4


class CappedFile:
    """A log file that keeps its first quarter and its newest output.

    When it is full, the middle is cut out: head, one line that says how many bytes are gone, and the newest
    quarter are written to a new file that takes the old one's place. Whoever follows sees another inode.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self.disk_full = False
        self._path = path
        self._limit = max(limit, _LEAST)
        self._keep = kept(limit)
        self._mark = b""
        self._dropped = 0
        self._lost = 0  # for want of space on the disk
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
        """With no space for a second file, the head stays and the tail begins anew."""
        draft.unlink(missing_ok=True)
        self._dropped += self._size - self._keep - len(self._mark)
        os.ftruncate(self._fd, self._keep)
        self._size, self._mark = self._keep, b""

    def _note(self, error: OSError) -> None:
        self.disk_full |= error.errno in {errno.ENOSPC, errno.EDQUOT}


class Mirror:
    """Copies output to a stream of our own as fast as its reader takes it; the rest is dropped."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._pieces: queue.Queue[bytes | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._copy, daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        with contextlib.suppress(queue.Full):
            self._pieces.put_nowait(data)

    def close(self, timeout: float) -> None:
        """Give the reader `timeout` seconds for the rest."""
        with contextlib.suppress(queue.Full):
            self._pieces.put(None, timeout=timeout)
            self._thread.join(timeout)

    def _copy(self) -> None:
        while (piece := self._pieces.get()) is not None:
            rest = memoryview(piece)
            with contextlib.suppress(OSError):  # a reader that left is no reason to stop
                while rest:
                    rest = rest[os.write(self._fd, rest) :]
