"""A snapshot of a directory for the image, in a fixed order."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal["file", "dir", "link"]


def text(path: bytes) -> str:
    """Decode a path or pattern to text that `raw` turns back into the same bytes, in any locale."""
    return path.decode("utf-8", "surrogateescape")


def raw(path: str) -> bytes:
    """Encode a path from `text` to its bytes."""
    return path.encode("utf-8", "surrogateescape")


def shown(path: str) -> str:
    """Make control characters and invalid bytes of a path visible, for messages."""
    readable = raw(path).decode("utf-8", "backslashreplace")
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in readable
    )


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, directory or symbolic link. Times and owners do not affect the image."""

    path: str  # POSIX, relative, surrogateescape for bytes that are not UTF-8
    kind: Kind
    mode: int = 0o644  # 0o644 or 0o755; directories 0o755, links 0o777
    size: int = 0
    sha256: str = ""  # of a file's content
    target: str = ""  # of a link
    source: str = ""  # path of a file's content on this host; "" if `body` has it
    body: bytes | None = field(default=None, repr=False)  # may have secrets of the host

    @property
    def line(self) -> bytes:
        """The entry's part of the digest: all that is visible in the image, and nothing else.

        Fields end in NUL, which paths cannot contain, so different trees have different lines.
        """
        return raw(f"{self.kind}\0{self.mode:o}\0{self.sha256 or self.target}\0{self.path}\0")


@dataclass(frozen=True, slots=True)
class ContextSnapshot:
    """Entries sorted by the bytes of their path components; a directory comes before its contents."""

    entries: tuple[Entry, ...] = ()

    @property
    def digest(self) -> str:
        """Digest of the content: equal digests mean equal trees in the image."""
        return hashlib.sha256(b"".join(entry.line for entry in self.entries)).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of file content."""
        return sum(entry.size for entry in self.entries)

    @property
    def files(self) -> int:
        return sum(entry.kind == "file" for entry in self.entries)


def file_snapshot(files: Mapping[str, bytes]) -> ContextSnapshot:
    """Create a tree in memory from relative POSIX paths and contents; directories follow from the paths."""
    entries = {path: _file(path, body) for path, body in files.items()}
    for path in files:
        for parent in _parents(path):
            entries.setdefault(parent, Entry(parent, "dir", 0o755))
    return ContextSnapshot(tuple(sorted(entries.values(), key=lambda entry: order(raw(entry.path)))))


def order(path: bytes) -> bytes:
    """Return a sort key: by path components, a directory before its contents."""
    return path.replace(b"/", b"\0")


def _file(path: str, body: bytes) -> Entry:
    return Entry(path, "file", size=len(body), sha256=hashlib.sha256(body).hexdigest(), body=body)


def _parents(path: str) -> list[str]:
    names = path.split("/")
    return ["/".join(names[:depth]) for depth in range(1, len(names))]
