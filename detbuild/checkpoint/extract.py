"""Extracts untrusted archives: only regular files and directories, only inside one new directory.

Each directory is opened relative to its parent, never by its full path, and no link is created or followed.
The filter of `tarfile` was bypassed several times (CVE-2024-12718, CVE-2025-4330, CVE-2025-4517).
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import tarfile
import zlib
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final, cast

from detbuild.errors import ConfigError
from determined._untrusted import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MAGIC: Final = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\x00", lzma.open))
_BLOCK: Final = 1 << 20
_MOST_EXPANDED: Final = 100  # largest compression ratio: weights hardly compress
_ALWAYS: Final = 1 << 28  # bytes that any archive may extract to
_MOST_ENTRIES: Final = 100_000
_SPARE: Final = 20  # one part in 20 of the free space is left free
_LONGEST_READ: Final = 4 << 20  # largest read in bytes; a header may claim any length
_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BROKEN: Final = (tarfile.TarError, EOFError, OSError, ValueError, zlib.error, lzma.LZMAError)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    entries: int = _MOST_ENTRIES
    size: int = 1 << 40  # total bytes of all files
    depth: int = 64  # nested directories
    why: str = ""  # the reason for the size limit, as a suffix of the message

    @classmethod
    def of(cls, archive: Path, target: Path) -> Limits:
        """Derive the limits from the free space of `target` and the size of the archive."""
        disk = os.statvfs(target)
        free = disk.f_bavail * disk.f_frsize
        room = free - free // _SPARE
        expanded = archive.stat().st_size * _MOST_EXPANDED + _ALWAYS
        entries = min(_MOST_ENTRIES, disk.f_favail) if disk.f_files else _MOST_ENTRIES
        if room <= expanded:
            return cls(entries=entries, size=room, why=", the free space on the disk")
        return cls(entries=entries, size=expanded, why=f", {_MOST_EXPANDED} times the size of the archive")


def extract(archive: Path, target: Path, limits: Limits | None = None) -> None:
    """Extract a tar file, plain or compressed with gzip, bzip2 or xz, to the empty directory `target`.

    By default it may expand to a hundred times its size, and to the free space of the disk. Files get mode
    0644 and directories 0755, whatever the archive says. On an error, the files extracted so far are left in
    `target` for the caller to remove.

    Raises:
        ConfigError: It is not a valid archive, or an entry is not a regular file or directory, lies outside
            of `target`, is duplicated, or exceeds the limits.
    """
    with _broken_archive(archive), _opened(archive) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
        bounds = limits or Limits.of(archive, target)
        root = os.open(target, _DIRECTORY)
        try:
            left = bounds.size
            for number, member in enumerate(tar, start=1):
                if number > bounds.entries:
                    raise _refused(archive, member.name, f"is more than {bounds.entries} entries")
                left -= member.size if member.isreg() else 0
                if left < 0:
                    raise _refused(
                        archive, member.name, f"makes it larger than {bounds.size} bytes{bounds.why}"
                    )
                _unpack(tar, member, root, _parts(archive, member, bounds))
        finally:
            os.close(root)


def _parts(archive: Path, member: tarfile.TarInfo, bounds: Limits) -> list[str]:
    """Return the path components of the member."""
    name = member.name
    if not (member.isdir() or member.type in {tarfile.REGTYPE, tarfile.AREGTYPE}):
        raise _refused(archive, name, "is neither a regular file nor a directory")
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise _refused(archive, name, "leads out of the archive")
    if len(parts) > bounds.depth:
        raise _refused(archive, name, f"lies more than {bounds.depth} directories deep")
    if not parts and not member.isdir():
        raise _refused(archive, name, "has no name")
    return parts


def _unpack(tar: tarfile.TarFile, member: tarfile.TarInfo, root: int, parts: list[str]) -> None:
    *parents, name = parts or [""]
    if member.isdir():
        parents, name = parts, ""
    directory = os.dup(root)
    try:
        for parent in parents:
            above, directory = directory, _enter(directory, parent)
            os.close(above)
        if name:
            _write(tar, member, os.open(name, _FILE, 0o644, dir_fd=directory))
    finally:
        os.close(directory)


def _enter(directory: int, name: str) -> int:
    with suppress(FileExistsError):  # anything but a directory fails to open below
        os.mkdir(name, 0o755, dir_fd=directory)
    return os.open(name, _DIRECTORY, dir_fd=directory)


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, descriptor: int) -> None:
    with os.fdopen(descriptor, "wb") as file:
        body = tar.extractfile(member)
        assert body is not None
        left = member.size
        while left:
            block = body.read(min(_BLOCK, left))
            if not block:
                raise EOFError(f"{member.name} ends early")
            file.write(block)
            left -= len(block)
        file.flush()
        os.fsync(file.fileno())


class _Bounded:
    """A stream that rejects the huge reads of a hostile header, which would fill the memory."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LONGEST_READ:
            raise ValueError("a header is too long")
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


@contextmanager
def _opened(archive: Path) -> Iterator[IO[bytes]]:
    with archive.open("rb") as raw:
        start = raw.read(8)
        raw.seek(0)
        opener = next((opener for magic, opener in _MAGIC if start.startswith(magic)), None)
        stream = cast("IO[bytes]", opener(raw, "rb")) if opener else raw
        with stream:
            yield cast("IO[bytes]", _Bounded(stream))


@contextmanager
def _broken_archive(archive: Path) -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        reason = reason_of(error) if isinstance(error, OSError) else error
        raise ConfigError(
            f"cannot unpack {archive}: {reason}", hint="use a complete tar file, or a directory"
        ) from error


def _refused(archive: Path, name: str, why: str) -> ConfigError:
    return ConfigError(
        f"{archive} was rejected: {name!r} {why}",
        hint="unpack it in a sandbox, check it, and use the directory",
    )
