"""A directory as a value: what will be baked into the image, in one fixed order."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal["file", "dir", "link"]


def text(path: bytes) -> str:
    """A path or a pattern as text that `raw` turns back into the same bytes, whatever the locale."""
    return path.decode("utf-8", "surrogateescape")


def raw(path: str) -> bytes:
    """The bytes of a path that `text` made."""
    return path.encode("utf-8", "surrogateescape")


def shown(path: str) -> str:
    """A path for people: line breaks, other control characters and odd bytes made visible."""
    readable = raw(path).decode("utf-8", "backslashreplace")
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in readable
    )


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, directory or symbolic link. Times and owners are not kept: they must not reach the image."""

    path: str  # POSIX, relative, surrogateescape for bytes that are not UTF-8
    kind: Kind
    mode: int = 0o644  # 0o644 or 0o755; directories 0o755, links 0o777
    size: int = 0
    sha256: str = ""  # of a file's content
    target: str = ""  # of a link
    source: str = ""  # where a file's content is read from; "" when `body` holds it
    body: bytes | None = field(default=None, repr=False)  # what a build borrows may be secret

    @property
    def line(self) -> bytes:
        """What the entry adds to the digest: everything that can be seen in the image, nothing else.

        The fields end in NUL, which no path holds, so no two trees share their lines.
        """
        return raw(f"{self.kind}\0{self.mode:o}\0{self.sha256 or self.target}\0{self.path}\0")


@dataclass(frozen=True, slots=True)
class ContextSnapshot:
    """Entries sorted by the bytes of their path components; a directory comes before what it holds."""

    entries: tuple[Entry, ...] = ()

    @property
    def digest(self) -> str:
        """Names the content: equal digests mean equal trees in the image."""
        return hashlib.sha256(b"".join(entry.line for entry in self.entries)).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of file content."""
        return sum(entry.size for entry in self.entries)

    @property
    def files(self) -> int:
        return sum(entry.kind == "file" for entry in self.entries)


def file_snapshot(files: Mapping[str, bytes]) -> ContextSnapshot:
    """A tree that is on no disk: relative POSIX paths and contents; the directories follow from the paths."""
    entries = {path: _file(path, body) for path, body in files.items()}
    for path in files:
        for parent in _parents(path):
            entries.setdefault(parent, Entry(parent, "dir", 0o755))
    return ContextSnapshot(tuple(sorted(entries.values(), key=lambda entry: order(raw(entry.path)))))


def order(path: bytes) -> bytes:
    """Sort key: by path components, a directory before what it holds."""
    return path.replace(b"/", b"\0")


def _file(path: str, body: bytes) -> Entry:
    return Entry(path, "file", size=len(body), sha256=hashlib.sha256(body).hexdigest(), body=body)


def _parents(path: str) -> list[str]:
    names = path.split("/")
    return ["/".join(names[:depth]) for depth in range(1, len(names))]
