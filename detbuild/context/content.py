"""Reads files so that concurrent changes are detected."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from detbuild.context.snapshot import Entry, raw, shown
from detbuild.errors import ContextError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CHUNK = 1 << 20
_TRIES = 3
_REPAIR = "stop the process that writes to it, or add it to .detignore"


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
