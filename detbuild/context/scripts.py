"""Converts shell scripts of a context from Windows line ends and encodings, which a shell cannot read."""

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
_HEAD: Final = 64  # bytes checked for UTF-16 without a mark; a script may end in an archive
_READ: Final = 1000  # scripts of one context
_SHOWN: Final = 3  # scripts in one warning


def with_unix_scripts(
    context: ContextSnapshot, command: str | Sequence[str]
) -> tuple[ContextSnapshot, tuple[Warned, ...]]:
    """Convert shell scripts to UTF-8 with Unix line ends, and warn of those that changed.

    Args:
        context: Files of the image.
        command: The entrypoint; a script that it starts may be recognized only by its first line.

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
    """Return the paths that a command may name."""
    return frozenset(posixpath.normpath(word) for word in words_of(command))


def words_of(command: str | Sequence[str]) -> list[str]:
    """Split a command into words, as a shell does."""
    if not isinstance(command, str):
        return list(command)
    try:
        return shlex.split(command)
    except ValueError:  # an unclosed quote
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
            hint="make it readable, or add it to .detignore",
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
    rest = len(paths) - _SHOWN
    names = ", ".join(map(shown, paths[:_SHOWN])) + (f" and {rest} more" if rest > 0 else "")
    have = "has" if len(paths) == 1 else "have"
    return Warned(
        f"{names} {have} Windows line ends or encoding, which a shell cannot read; converted in the image",
        "save as UTF-8 with Unix line ends (LF)",
    )
