"""A directory as a value: what will be baked into the image, in one fixed order."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

Kind = Literal["file", "dir", "link"]


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
    body: bytes | None = None

    @property
    def line(self) -> bytes:
        """What the entry adds to the digest: everything that can be seen in the image, nothing else."""
        text = f"{self.kind} {self.mode:o} {self.sha256 or self.target} {self.path}\n"
        return text.encode("utf-8", "surrogateescape")


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
