"""Caches content hashes between submissions, so that unchanged files are not read again."""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import time
from typing import TYPE_CHECKING

from detbuild.context.content import hash_file, state
from determined._run_info import private

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_MAGIC = b"detbuild hashes 1\n"
_RECORD = struct.Struct("<QqqQ32s")  # size, mtime_ns, ctime_ns, inode, SHA-256
_RACY = 2_000_000_000  # ns: time stamps are coarse, so a later write may keep them (as in git's racy entries)

_Known = tuple[int, int, int, int, bytes]


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
