r"""The one filter between everything that detbuild prints and a terminal: text and colours pass, no more.

A terminal acts on control sequences: they set its title and its clipboard, move the cursor, make it answer.
The output of a trial, a file or a name may contain any of them. Newline, tab, carriage return and colours
(SGR) pass; every other control is shown as an escape such as `\x1b`. A pipe or a file gets the exact bytes.
"""

from __future__ import annotations

import codecs
import io
import re
import sys
import unicodedata
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, Final, TextIO

import click

from detbuild.escaping import escape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import ReadableBuffer

_SGR: Final = r"\x1b\[[0-9;:]{0,64}m"
# C0 except tab, newline and carriage return; DEL and C1; marks that reorder text or end a line.
_CONTROL: Final = (
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
    r"\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_TOKEN: Final = re.compile(f"{_SGR}|{_CONTROL}")
_UNFINISHED: Final = re.compile(r"\x1b(?:\[[0-9;:]{0,64})?\Z")


class ControlFilter:
    """Filters a stream of bytes in pieces; a sequence may be split over pieces."""

    def __init__(self, encoding: str = "utf-8") -> None:
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)("backslashreplace")
        self._held = ""  # the start of a possible colour sequence

    def feed(self, data: bytes) -> bytes:
        """Return the filtered bytes that can be shown now."""
        text = self._held + self._decoder.decode(data)
        unfinished = _UNFINISHED.search(text)
        self._held = unfinished[0] if unfinished else ""
        return self._shown(text[: len(text) - len(self._held)])

    def finish(self) -> bytes:
        """Return the rest at the end of the stream."""
        text = self._held + self._decoder.decode(b"", final=True)
        self._held = ""
        return self._shown(text)

    def _shown(self, text: str) -> bytes:
        shown = _TOKEN.sub(lambda match: match[0] if len(match[0]) > 1 else escape(match[0]), text)
        return shown.encode(self._encoding, "backslashreplace")


class _Guarded(io.BufferedIOBase):
    """The bytes of a terminal behind a filter."""

    def __init__(self, terminal: BinaryIO, encoding: str) -> None:
        self._terminal, self._filter = terminal, ControlFilter(encoding)

    @property
    def name(self) -> str:
        return str(self._terminal.name)

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        piece = bytes(data)
        self._terminal.write(self._filter.feed(piece))
        return len(piece)

    def flush(self) -> None:
        self._terminal.flush()

    def fileno(self) -> int:
        return self._terminal.fileno()

    def isatty(self) -> bool:
        return True

    def finish(self) -> None:
        """Write the bytes that were held back."""
        self._terminal.write(self._filter.finish())
        self._terminal.flush()

    def close(self) -> None:
        """Leave the terminal open, which belongs to the process."""


class GuardedText(io.TextIOWrapper):
    """A text stream to a terminal behind a filter; `unfiltered` is the terminal itself."""

    def __init__(self, terminal: TextIO) -> None:
        self.unfiltered = terminal
        self._guarded = _Guarded(terminal.buffer, terminal.encoding)
        super().__init__(
            self._guarded, encoding=terminal.encoding, errors="backslashreplace", line_buffering=True
        )

    def finish(self) -> None:
        self.flush()
        self._guarded.finish()


def unfiltered(stream: TextIO) -> TextIO:
    """Return the stream without the filter, for live views and `--raw`."""
    if isinstance(stream, GuardedText):
        stream.flush()
        return stream.unfiltered
    return stream


@contextmanager
def guarded() -> Iterator[None]:
    """Put the filter before stdout and stderr if they are terminals."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(_guarded, before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, GuardedText):
                stream.finish()
        sys.stdout, sys.stderr = before


def _guarded(stream: TextIO) -> TextIO:
    return GuardedText(stream) if stream.isatty() else stream


def width(text: str) -> int:
    """Return the terminal columns of a text: Chinese, Japanese and Korean letters take two."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "FW" else 1
        for char in text
    )


def cut(text: str, room: int) -> str:
    """Cut the middle out of a text to fit `room` columns, because names differ at either end."""
    if width(text) <= room:
        return text
    head, tail = text, ""
    kept = max(0, room - 2)
    while width(head) > kept - kept // 2:
        head = head[:-1]
    for char in reversed(text[len(head) :]):
        if width(char + tail) > kept // 2:
            break
        tail = char + tail
    return f"{head}..{tail}"


def terminal_width() -> int | None:
    """Return the columns of the terminal; None if stdout is not one and nothing may be cut."""
    if not sys.stdout.isatty():
        return None
    import shutil

    return shutil.get_terminal_size().columns


def echo(line: str, is_progress: bool) -> None:  # noqa: FBT001  (as EventLines calls it)
    click.echo(line, err=is_progress)
