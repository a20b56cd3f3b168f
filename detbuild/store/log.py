"""Follows the log of a run, and continues at the right byte after its middle was removed.

The supervisor keeps a log below its limit by replacing it with its head, a mark with the number of bytes
removed, and the newest output. A run may write anything: an unreadable log is replaced with a message.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from detbuild.store.folder import OUTPUT_FILES
from determined._run_info import OUTPUT_LIMIT
from determined._untrusted import UntrustedError, UntrustedMissingError
from determined.exec._output import MARK, kept

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from detbuild.store.folder import RunFolder

LARGEST_LOG = 2 * OUTPUT_LIMIT  # bytes; twice the limit of the supervisor
_BLOCK = 1 << 20
_LONGEST_MARK = 100


class LogFile:
    """Reads one log incrementally."""

    def __init__(self, folder: RunFolder, stream: str, *, limit: int = OUTPUT_LIMIT) -> None:
        self._folder = folder
        self._stream = stream
        self._head = kept(limit)
        self._passed = 0  # bytes of output, including removed ones
        self._refused = ""  # why it cannot be read, once reported

    def blocks(self) -> Iterator[bytes]:
        """Yield the data appended since the last call; none if there is no file."""
        try:
            file = open_log(self._folder, self._stream)
        except UntrustedMissingError:
            return
        except UntrustedError as error:
            if error.reason != self._refused:
                self._refused = error.reason
                yield left_out(self._stream, error)
            return
        with file:
            gone = self._seek(file)
            while file.tell() < LARGEST_LOG and (block := file.read(_BLOCK)):
                place = file.tell()
                self._passed = place if place <= self._head else place + gone
                yield block

    def lines(self) -> Iterator[bytes]:
        """Yield the new data as lines with their line ends."""
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
        """Seek to the next data; return the offset between output and file after the mark."""
        found = MARK.match(os.pread(file.fileno(), _LONGEST_MARK, self._head))
        if not found and self._passed > os.fstat(file.fileno()).st_size:
            self._passed = self._head  # the disk was full, so all but the head was dropped
        gone, mark = (int(found[1]), len(found[0])) if found else (0, 0)
        if self._passed >= self._head + gone:
            file.seek(self._passed - gone + mark)
        else:  # the removed part was not read: continue with the mark
            file.seek(min(self._passed, self._head))
        return gone - mark


def open_log(folder: RunFolder, stream: str) -> BinaryIO:
    """Open the log of "stdout" or "stderr".

    Raises:
        UntrustedError: It is not a regular file, or too large.
    """
    return folder.files.open(OUTPUT_FILES[stream], limit=LARGEST_LOG)


def left_out(stream: str, error: UntrustedError) -> bytes:
    """Return the message that replaces a log that cannot be read."""
    return f"[detbuild: {OUTPUT_FILES[stream]} {error.reason}; skipped]\n".encode()
