"""A snapshot of a directory for the image: its entries in a fixed order, and the reading of their content.

A file is identified by the digest of its content, so a change while it is read, or later, is detected. Hashes
are cached between submissions by size, times and inode, so that unchanged files are not read again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import struct
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from detbuild import textfile
from detbuild.errors import ContextError
from detbuild.textfile import TextFileError
from determined._contract.run_info import private
from determined._contract.untrusted import reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

Kind = Literal["file", "dir", "link"]
_CHUNK = 1 << 20
_TRIES = 3
_REPAIR = "stop the process that writes to it, or add it to .detignore"
_MAGIC = b"detbuild hashes 1\n"
_RECORD = struct.Struct("<QqqQ32s")  # size, mtime_ns, ctime_ns, inode, SHA-256
_RACY = 2_000_000_000  # ns: time stamps are coarse, so a later write may keep them (as in git's racy entries)
_Known = tuple[int, int, int, int, bytes]
_HOPS: Final = 40  # links in one path, as in Linux


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


def hash_file(source: bytes, count: Callable[[int], None] | None = None) -> tuple[str, os.stat_result]:
    """Return the SHA-256 of a file, and the file state that it belongs to.

    Args:
        source: absolute path.
        count: called with the size of each chunk read.

    Raises:
        OSError: it cannot be read.
        ContextError: it changed during every attempt to read it.
    """
    for _ in range(_TRIES):
        with _opened(source) as descriptor:
            before = os.fstat(descriptor)
            digest = hashlib.sha256()
            length = 0
            # at most one byte too many: a file may grow faster than it is read
            while length <= before.st_size and (
                chunk := os.read(descriptor, min(before.st_size + 1, _CHUNK))
            ):
                digest.update(chunk)
                length += len(chunk)
                if count:
                    count(len(chunk))
            after = os.fstat(descriptor)
        if state(before) == state(after) and length == after.st_size:
            return digest.hexdigest(), after
    raise _changed("it changes while it is read")


def state(seen: os.stat_result) -> tuple[int, int, int, int]:
    """Identify the state of a file without reading it."""
    return seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino


def open_entry(entry: Entry) -> Iterator[bytes]:
    """Yield the content of a file entry: exactly the bytes that the snapshot saw.

    The last chunk is held back until size and SHA-256 are verified, so that nothing of a small file that has
    changed is returned.

    Raises:
        ContextError: the file is gone, unreadable, or not what the snapshot saw.
    """
    if entry.body is not None:
        yield entry.body
        return
    try:
        with _opened(raw(entry.source)) as descriptor:
            yield from _verified(entry, descriptor)
    except OSError as error:
        raise _changed(f"{shown(entry.path)} can no longer be read: {error.strerror}") from error


def _verified(entry: Entry, descriptor: int) -> Iterator[bytes]:
    digest = hashlib.sha256()
    left = entry.size
    held = b""
    while left:
        chunk = os.read(descriptor, min(left, _CHUNK))
        if not chunk:
            raise _changed(f"{shown(entry.path)} has shrunk since the context was read")
        digest.update(chunk)
        left -= len(chunk)
        if held:
            yield held
        held = chunk
    if os.read(descriptor, 1):
        raise _changed(f"{shown(entry.path)} has grown since the context was read")
    if digest.hexdigest() != entry.sha256:
        raise _changed(f"{shown(entry.path)} has changed since the context was read")
    if held:
        yield held


@contextmanager
def _opened(source: bytes) -> Iterator[int]:
    """Open a regular file, without following a link or waiting for a pipe that replaced it."""
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no longer a regular file")
        yield descriptor
    finally:
        os.close(descriptor)


def _changed(cause: str) -> ContextError:
    return ContextError(cause, hint=_REPAIR)


class HashCache:
    """Hashes by path, size, times and inode, for the files of one context directory.

    A damaged or missing file is an empty cache; a failure to write it is ignored.
    """

    def __init__(self, path: Path, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._path = path
        self._clock = clock
        self._known = _load(path)
        self._used: dict[bytes, _Known] = {}

    @classmethod
    def of(cls, directory: Path, cache: Path) -> HashCache:
        """Return the cache of a directory, a file in `cache`."""
        name = hashlib.sha256(os.fsencode(directory.resolve())).hexdigest()[:16]
        return cls(cache / f"{name}.hashes")

    def sha256(
        self, source: bytes, seen: os.stat_result, count: Callable[[int], None] | None = None
    ) -> tuple[str, int]:
        """Return SHA-256 and size of a file, read only if it may have changed.

        Args:
            source: absolute path.
            seen: its current state.
            count: called with the number of bytes read.

        Raises:
            OSError: it cannot be read.
            ContextError: it changed during every attempt to read it.
        """
        known = self._known.get(source)
        if known is not None and known[:4] == state(seen):
            self._used[source] = known
            return known[4].hex(), known[0]
        started = self._clock()
        digest, read = hash_file(source, count)
        if started - max(read.st_mtime_ns, read.st_ctime_ns) > _RACY:
            self._used[source] = (*state(read), bytes.fromhex(digest))
        return digest, read.st_size

    def save(self) -> None:
        """Write the hashes of the files seen since the cache was opened, atomically; drop all others."""
        if self._used == self._known:
            return
        with contextlib.suppress(OSError):
            _replace(self._path, _dump(self._used))
            self._known = dict(self._used)


def _load(path: Path) -> dict[bytes, _Known]:
    try:
        content = path.read_bytes()
    except OSError:
        return {}
    head, body = content[: len(_MAGIC) + 32], content[len(_MAGIC) + 32 :]
    if head != _MAGIC + hashlib.sha256(body).digest():
        return {}
    (count,) = struct.unpack_from("<Q", body)
    paths = 8 + count * _RECORD.size
    return dict(zip(body[paths:].split(b"\0"), _RECORD.iter_unpack(body[8:paths]), strict=False))


def _dump(known: dict[bytes, _Known]) -> bytes:
    records = b"".join(_RECORD.pack(*record) for record in known.values())
    body = struct.pack("<Q", len(known)) + records + b"\0".join(known)
    return _MAGIC + hashlib.sha256(body).digest() + body


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb", opener=private) as file:
            file.write(content)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


_ROOT: Final = Entry("", "dir", 0o755)


class Tree:
    """A snapshot by path; links are followed as in a container."""

    def __init__(self, snapshot: ContextSnapshot) -> None:
        self._entries = {entry.path: entry for entry in snapshot.entries}

    def find(self, path: str | None) -> Entry | None:
        """Return the file or directory at a path; None if there is none, or the path is None."""
        return None if path is None else self._walk(path)[0]

    def exists(self, path: str | None) -> bool:
        return self.find(path) is not None

    def is_dir(self, path: str | None) -> bool:
        return (found := self.find(path)) is not None and found.kind == "dir"

    def is_file(self, path: str | None) -> bool:
        return (found := self.find(path)) is not None and found.kind == "file"

    def children(self, directory: str) -> tuple[str, ...]:
        """Return the paths directly in a directory, including links."""
        prefix = f"{directory}/" if directory else ""
        return tuple(
            path for path in self._entries if path.startswith(prefix) and "/" not in path[len(prefix) :]
        )

    def below(self, directory: str) -> Iterator[str]:
        """Yield all paths below a directory."""
        prefix = f"{directory}/" if directory else ""
        return (path for path in self._entries if path.startswith(prefix))

    def needed(self, paths: Iterable[str]) -> ContextSnapshot:
        """Return the subtree of these paths, with their parents and links."""
        found: dict[str, Entry] = {}
        for path in paths:
            end, links = self._walk(path)
            for entry in (*links, *((end,) if end else ())):
                found[entry.path] = entry
                for parent in _parents(entry.path):
                    found.setdefault(parent, self._entries.get(parent, Entry(parent, "dir", 0o755)))
        found.pop("", None)
        return ContextSnapshot(tuple(sorted(found.values(), key=lambda entry: order(raw(entry.path)))))

    def _walk(self, path: str) -> tuple[Entry | None, list[Entry]]:
        """Return the entry at the end of a path, and the links on the way."""
        waiting, at, links = path.split("/")[::-1], list[str](), list[Entry]()
        while waiting:
            part = waiting.pop()
            if part == ".." and not at:
                return None, links
            if part in {"", ".", ".."}:
                del at[len(at) - (part == "..") :]
                continue
            entry = self._entries.get("/".join((*at, part)))
            if entry is None or (entry.kind == "file" and any(waiting)) or len(links) > _HOPS:
                return None, links
            if entry.kind == "link":
                links.append(entry)
                waiting += entry.target.split("/")[::-1]
            else:
                at.append(part)
        return self._entries.get("/".join(at), _ROOT), links


def below(directory: str, tree: ContextSnapshot) -> ContextSnapshot:
    """Move a tree into a new top directory."""
    moved = tuple(replace(entry, path=f"{directory}/{entry.path}") for entry in tree.entries)
    return ContextSnapshot((Entry(directory, "dir", 0o755), *moved))


def merged(*trees: ContextSnapshot) -> ContextSnapshot:
    """Merge trees with different paths."""
    entries = (entry for tree in trees for entry in tree.entries)
    return ContextSnapshot(tuple(sorted(entries, key=lambda entry: order(raw(entry.path)))))


def read(entry: Entry) -> bytes:
    if entry.body is not None:
        return entry.body
    try:
        return Path(entry.source).read_bytes()
    except OSError as error:
        raise ContextError(
            f"cannot read {shown(entry.path)}: {reason_of(error)}",
            hint="make it readable, or add it to .detignore",
        ) from error


def read_text(entry: Entry, encoding: str = "utf-8") -> str:
    """Return the text of a small file; `encoding` is used without a byte order mark.

    Raises:
        ContextError: It cannot be read, is too large, or not text.
    """
    if entry.size > textfile.MAX_BYTES:
        raise ContextError(f"{shown(entry.path)}: is larger than {textfile.MAX_BYTES >> 20} MiB")
    try:
        return textfile.decode(read(entry), encoding)
    except TextFileError as error:
        raise ContextError(f"{shown(entry.path)}{error.where}: {error}") from error
