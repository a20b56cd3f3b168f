"""Reads small text files: byte order marks, line ends, and the position of invalid characters."""

from __future__ import annotations

import codecs
import os
import stat
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES: Final = 4 << 20
# UTF-32 first: its little-endian mark begins with the one of UTF-16.
_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_PIPES: Final = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")  # what a shell passes for `<(...)`


class TextFileError(ValueError):
    """A file that cannot be read as text; `where` is ":line:column", or "" for the file as a whole."""

    def __init__(self, cause: str, *, where: str = "") -> None:
        super().__init__(cause)
        self.where = where


def read_text(path: Path) -> str:
    """Read and decode a file.

    Raises:
        OSError: It cannot be opened.
        TextFileError: It is not a regular file, too large, or not text.
    """
    return decode(read_bytes(path))


def read_bytes(path: Path | bytes) -> bytes:
    """Read a regular file, or a pipe from the caller's shell, up to the size limit.

    Raises:
        OSError: It cannot be opened.
        TextFileError: It is not a regular file, or too large.
    """
    # Non-blocking, so that opening a named pipe without a writer returns.
    with open(path, "rb", opener=_opener) as file:
        is_pipe = os.fsdecode(path).startswith(_PIPES)
        if not (stat.S_ISREG(os.fstat(file.fileno()).st_mode) or is_pipe):
            raise TextFileError("is not a regular file")
        os.set_blocking(file.fileno(), True)
        body = file.read(MAX_BYTES + 1)
    if len(body) > MAX_BYTES:
        raise TextFileError(f"is larger than {MAX_BYTES >> 20} MiB")
    return body


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def decode(body: bytes, encoding: str = "utf-8") -> str:
    """Decode by the byte order mark, which is removed, else by `encoding`; line ends are kept.

    Raises:
        TextFileError: It is not text in that encoding, or has a NUL character.
    """
    mark, encoding = next(((m, e) for m, e in _MARKS if body.startswith(m)), (b"", encoding))
    nul = -1 if mark else body.find(b"\0")
    try:
        text = body[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        if nul >= 0:
            raise _has_nul(body[:nul].decode(encoding, "replace")) from None
        before = error.object[: error.start].decode(encoding, "replace")
        name = encoding.upper().removesuffix("-LE").removesuffix("-BE")
        raise TextFileError(f"is not {name} text; save it as UTF-8", where=_place(before)) from None
    if "\0" in text:
        raise _has_nul(text[: text.index("\0")])
    return text


def _has_nul(before: str) -> TextFileError:
    what = "has a NUL character, as UTF-16 without a byte order mark does; save it as UTF-8"
    return TextFileError(what, where=_place(before))


def bodies(text: str) -> tuple[bytes, ...]:
    """Return all encodings of a text that `decode` reads: UTF-8, and each one with its mark."""
    return (text.encode(), *(mark + text.encode(encoding) for mark, encoding in _MARKS))


def unix_lines(text: str) -> str:
    """Replace the line ends of Windows and old Macs by those of Unix."""
    text = text.replace("\r\n", "\n")
    return text if "\n" in text else text.replace("\r", "\n")


def _place(before: str) -> str:
    lines = unix_lines(before).split("\n")
    return f":{len(lines)}:{len(lines[-1]) + 1}"
