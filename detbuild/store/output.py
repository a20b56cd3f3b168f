"""The output of a run as lines of text, while it grows and after."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from detbuild.store.log import LogFile
from detbuild.store.reading import open_written

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from detbuild.store.folder import RunFolder

TAIL_LINES: Final = 20  # what is shown of the output of a failed run
_LONGEST = 64 << 10  # bytes of one line of text; a longer one is shown in pieces
_TAIL = 64 << 10  # bytes looked at for the last lines


class OutputFile:
    """Lines of one stream, read on from where the last look ended. Bytes that are no UTF-8 become U+FFFD."""

    def __init__(self, path: Path) -> None:
        self._log = LogFile(path)
        self._held = b""

    def new(self) -> Iterator[str]:
        """Yield the lines that became whole since the last look."""
        for data in self._log.blocks():
            *lines, self._held = (self._held + data).split(b"\n")
            yield from (_text(line) for line in lines)
            if len(self._held) > _LONGEST:
                yield _text(self._held)
                self._held = b""

    def rest(self) -> Iterator[str]:
        """Yield all that is left, when the run is over."""
        yield from self.new()
        if self._held:
            yield _text(self._held)
            self._held = b""


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").removesuffix("\r")


def tail(folder: RunFolder, lines: int = TAIL_LINES) -> tuple[str, ...]:
    """The last lines that tell most about a failure: those of stderr, or of stdout when it is silent."""
    for stream in ("stderr", "stdout"):
        found = _last(folder.output(stream), lines)
        if found:
            return found
    return ()


def last_text(path: Path, limit: int) -> tuple[str, bool]:
    """The last whole lines within `limit` bytes, and whether that is not all."""
    data, cut = _end_of(path, limit)
    if cut:
        data = data.partition(b"\n")[2] or data
    return data.decode("utf-8", "replace"), cut


def _last(path: Path, lines: int) -> tuple[str, ...]:
    data, _ = _end_of(path, _TAIL)
    return tuple(_text(line)[:500] for line in data.splitlines()[-lines:])


def _end_of(path: Path, limit: int) -> tuple[bytes, bool]:
    """The last bytes of a file, and whether there are more before them."""
    file = open_written(path)
    if file is None:
        return b"", False
    with file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - limit))
        return file.read(limit), size > limit
