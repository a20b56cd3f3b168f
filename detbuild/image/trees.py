"""Trees moved below a directory, and the bytes of their files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from detbuild.context.snapshot import ContextSnapshot, Entry, shown
from detbuild.errors import ContextError


def below(directory: str, tree: ContextSnapshot) -> ContextSnapshot:
    """The same tree inside a new top directory."""
    moved = tuple(replace(entry, path=f"{directory}/{entry.path}") for entry in tree.entries)
    return ContextSnapshot((Entry(directory, "dir", 0o755), *moved))


def read(entry: Entry) -> bytes:
    if entry.body is not None:
        return entry.body
    try:
        return Path(entry.source).read_bytes()
    except OSError as error:
        raise ContextError(
            f"cannot read {shown(entry.path)}: {error.strerror}",
            mend="make it readable, or name it in .detignore",
        ) from error
