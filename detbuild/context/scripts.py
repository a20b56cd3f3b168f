"""Shell scripts of a context as a shell can run them: Windows leaves marks in them that it cannot read."""

from __future__ import annotations

import hashlib
import posixpath
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from detbuild import textfile
from detbuild.context.snapshot import ContextSnapshot, shown
from detbuild.errors import ContextError
from detbuild.events import Warned
from detbuild.textfile import TextFileError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detbuild.context.snapshot import Entry

HOOK: Final = "startup-hook.sh"
_SUFFIXES: Final = (".sh", ".bash")
_MARKS: Final = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")
_HEAD: Final = 64  # bytes in which UTF-16 without a mark shows; a script may end in an archive
_READ: Final = 1000  # scripts of one context
_NAMED: Final = 3  # of them in one warning


def with_unix_scripts(
    context: ContextSnapshot, command: str | Sequence[str]
) -> tuple[ContextSnapshot, tuple[Warned, ...]]:
    """Give shell scripts the line ends and the encoding that a shell reads, and name those that had others.

    Args:
        context: What goes into the image.
        command: The entrypoint; what it starts may be a script by its first line alone.

    Raises:
        ContextError: A script is UTF-16 that cannot be read.
    """
    named = _words(command)
    changed: dict[str, Entry] = {}
    for entry in _scripts(context, named):
        body = entry.body if entry.body is not None else _content(entry)
        if entry.path.endswith(_SUFFIXES) or body.startswith(b"#!"):
            fixed = _fixed(entry.path, body)
            if fixed != body:
                sha256 = hashlib.sha256(fixed).hexdigest()
                changed[entry.path] = replace(entry, body=fixed, size=len(fixed), sha256=sha256, source="")
    if not changed:
        return context, ()
    entries = tuple(changed.get(entry.path, entry) for entry in context.entries)
    return ContextSnapshot(entries), (_warning(list(changed)),)


def _words(command: str | Sequence[str]) -> frozenset[str]:
    """Paths of the context that a command may name."""
    return frozenset(posixpath.normpath(word) for word in words_of(command))


def words_of(command: str | Sequence[str]) -> list[str]:
    """The words of a command, as a shell parts them."""
    if not isinstance(command, str):
        return list(command)
    try:
        return shlex.split(command)
    except ValueError:  # a quote is open
        return command.split()


def _scripts(context: ContextSnapshot, named: frozenset[str]) -> list[Entry]:
    found = [
        entry
        for entry in context.entries
        if entry.kind == "file"
        and (entry.path.endswith(_SUFFIXES) or entry.path in named)
        and entry.size <= textfile.MAX_BYTES
    ]
    return found[:_READ]


def _content(entry: Entry) -> bytes:
    try:
        return Path(entry.source).read_bytes()
    except OSError as error:
        raise ContextError(
            f"cannot read {shown(entry.path)}: {error.strerror}",
            hint="make it readable, or name it in .detignore",
        ) from error


def _fixed(path: str, body: bytes) -> bytes:
    if body.startswith(_MARKS) or b"\0" in body[:_HEAD]:
        try:
            body = textfile.decode(body).encode()
        except TextFileError as error:
            raise ContextError(f"{shown(path)}{error.where}: {error}") from error
    if b"\0" in body:
        return body
    body = body.replace(b"\r\n", b"\n")
    return body if b"\n" in body else body.replace(b"\r", b"\n")


def _warning(paths: list[str]) -> Warned:
    rest = len(paths) - _NAMED
    names = ", ".join(map(shown, paths[:_NAMED])) + (f" and {rest} more" if rest > 0 else "")
    have, them = ("has", "it") if len(paths) == 1 else ("have", "them")
    return Warned(
        f"{names} {have} line ends or an encoding of Windows, which a shell cannot read; the image has "
        f"{them} with those of Unix",
        "save as UTF-8 with line ends of Unix (LF)",
    )
