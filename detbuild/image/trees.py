"""Small trees made in memory, and trees moved below a directory."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from detbuild.context.snapshot import ContextSnapshot, Entry
from detbuild.errors import ContextError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def in_memory(files: Mapping[str, bytes]) -> ContextSnapshot:
    """A tree of files that exist nowhere on disk; no directories."""
    return ordered(
        Entry(path=path, kind="file", size=len(body), sha256=hashlib.sha256(body).hexdigest(), body=body)
        for path, body in files.items()
    )


def below(directory: str, tree: ContextSnapshot) -> ContextSnapshot:
    """The same tree inside a new top directory."""
    moved = tuple(replace(entry, path=f"{directory}/{entry.path}") for entry in tree.entries)
    return ContextSnapshot((Entry(path=directory, kind="dir", mode=0o755), *moved))


def ordered(entries: Iterable[Entry]) -> ContextSnapshot:
    """In the order that ContextSnapshot asks for."""
    return ContextSnapshot(
        tuple(sorted(entries, key=lambda entry: entry.path.encode("utf-8", "surrogateescape").split(b"/")))
    )


def read(entry: Entry) -> bytes:
    if entry.body is not None:
        return entry.body
    try:
        return Path(entry.source).read_bytes()
    except OSError as error:
        msg = f"cannot read {entry.path}: {error.strerror}"
        raise ContextError(msg, mend="make it readable, or name it in .detignore") from error
