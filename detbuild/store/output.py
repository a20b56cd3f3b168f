"""Reads the output of a run as lines of text, also while it grows."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from detbuild.store.log import LogFile, left_out, open_log
from determined._untrusted import UntrustedError, UntrustedMissingError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from detbuild.store.folder import RunFolder

TAIL_LINES: Final = 20  # lines shown of the output of a failed run
_LONGEST = 64 << 10  # bytes of one line; a longer one is split
_TAIL = 64 << 10  # bytes read for the last lines


class OutputFile:
    """Reads the lines of one stream incrementally. Bytes that are not valid UTF-8 become U+FFFD."""

    def __init__(self, folder: RunFolder, stream: str) -> None:
        self._log = LogFile(folder, stream)
        self._held = b""

    def new(self) -> Iterator[str]:
        """Yield the lines completed since the last call."""
        for data in self._log.blocks():
            *lines, self._held = (self._held + data).split(b"\n")
            yield from (_text(line) for line in lines)
            if len(self._held) > _LONGEST:
                yield _text(self._held)
                self._held = b""

    def rest(self) -> Iterator[str]:
        """Yield the rest after the run has ended, including an incomplete last line."""
        yield from self.new()
        if self._held:
            yield _text(self._held)
            self._held = b""


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").removesuffix("\r")


def tail(folder: RunFolder, lines: int = TAIL_LINES) -> tuple[str, ...]:
    """Return the last lines of stderr, or of stdout if stderr is empty."""
    for stream in ("stderr", "stdout"):
        found = _last(folder, stream, lines)
        if found:
            return found
    return ()


def last_text(folder: RunFolder, stream: str, limit: int) -> tuple[str, bool]:
    """Return the last complete lines within `limit` bytes, and whether earlier output was cut."""
    data, cut = _end_of(folder, stream, limit)
    if cut:
        data = data.partition(b"\n")[2] or data
    return data.decode("utf-8", "replace"), cut


def _last(folder: RunFolder, stream: str, lines: int) -> tuple[str, ...]:
    data, _ = _end_of(folder, stream, _TAIL)
    return tuple(_text(line)[:500] for line in data.splitlines()[-lines:])


def _end_of(folder: RunFolder, stream: str, limit: int) -> tuple[bytes, bool]:
    """Return the last bytes of a log, and whether there are more before them."""
    try:
        file = open_log(folder, stream)
    except UntrustedMissingError:
        return b"", False
    except UntrustedError as error:
        return left_out(stream, error), False
    with file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - limit))
        return file.read(limit), size > limit
