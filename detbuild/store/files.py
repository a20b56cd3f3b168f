"""Atomic, synced file writes: a crash leaves either the old or the new content."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from detbuild.errors import DiskFullError, EngineError
from determined._disk import NO_INODES, lacks_inodes
from determined._untrusted import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_TEMPORARY: Final = re.compile(r"\..+\.[0-9]+\.tmp")
_NEW: Final = 3600.0  # seconds
_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS})
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Translate OSError to an EngineError that names the file, or a DiskFullError if the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM and lacks_inodes(path.parent):
            hint = f"remove files there: `df -i {path.parent}` counts them"
            raise DiskFullError(f"{NO_INODES} to write {path}", hint=hint) from error
        if error.errno in NO_ROOM:
            raise DiskFullError(
                f"no free space to write {path}", hint="free some space on that disk"
            ) from error
        raise EngineError(
            f"cannot write {path}: {reason_of(error)}", hint="make the directory writable for your user"
        ) from error


def write_synced(path: Path, data: bytes) -> None:
    """Replace a file of the home atomically, synced to disk."""
    write_all_synced(path.parent, {path.name: data})


def write_all_synced(directory: Path, files: Mapping[str, bytes]) -> None:
    """Replace files of the home one by one in this order, synced to disk and readable only by their owner."""
    for name, data in files.items():
        with file_errors(directory / name):
            _replace(directory / name, data, mode=0o600)
    with file_errors(directory):
        sync_directory(directory)


def write_output(path: Path, data: bytes) -> None:
    """Write an output file of the user: replace it atomically, with the modes of the user's umask.

    Like `>` in a shell, this writes to the target of a link, and into a device or a pipe.
    """
    with file_errors(path):
        target = Path(os.path.realpath(path))  # unlike `resolve`, no error for a loop of links
        if target.exists() and not target.is_file():
            with target.open("wb") as file:
                file.write(data)
            return
        _replace(target, data, mode=0o666)
        sync_directory(target.parent)


def private_directory(path: Path) -> None:
    """Create a directory of the home with mode 0700; remove the access of others to an existing one.

    Raises:
        OSError: It cannot be created.
    """
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        close_to_others(path)


def close_to_others(path: Path) -> None:
    """Remove all permissions of group and others from a file or directory, if it exists."""
    with suppress(FileNotFoundError):
        seen = path.lstat()
        ours = seen.st_uid == os.geteuid() and not stat.S_ISLNK(seen.st_mode)
        if ours and stat.S_IMODE(seen.st_mode) & 0o077:
            path.chmod(stat.S_IMODE(seen.st_mode) & 0o700)


def _replace(path: Path, data: bytes, *, mode: int) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def sweep_temporaries(directory: Path) -> None:
    """Remove temporary files of killed writers from a directory; one in use is locked, or new."""
    try:
        with os.scandir(directory) as entries:
            left = [entry.path for entry in entries if _TEMPORARY.fullmatch(entry.name)]
    except OSError:
        return  # no such directory
    for name in left:
        with suppress(OSError):
            _sweep(name)


def _sweep(name: str) -> None:
    descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if time.time() - os.fstat(descriptor).st_mtime > _NEW:  # a new one may not be locked yet
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(name)  # noqa: PTH108  (as `scandir` gave it)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Sync a directory, so that the names of new files survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append_synced(path: Path, line: bytes) -> None:
    """Append a line atomically, after truncating a torn line that a crash left behind.

    A new file is readable only by its owner.
    """
    with file_errors(path), os.fdopen(_to_append(path), "r+b") as file:
        whole = _end_of_last_line(file.fileno())
        file.truncate(whole)
        file.seek(whole)
        try:
            file.write(line)
            file.flush()
            os.fdatasync(file.fileno())
        except OSError:
            os.ftruncate(file.fileno(), whole)
            raise


def _to_append(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _end_of_last_line(descriptor: int, block: int = 1 << 16) -> int:
    end = os.fstat(descriptor).st_size
    while end > 0:
        start = max(0, end - block)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def locked(descriptor: int, file: Path, kind: int) -> bool:
    """Lock an open file with `fcntl.flock`; return False if `kind` is non-blocking and it is locked.

    Raises:
        EngineError: The file system does not support locks.
    """
    try:
        fcntl.flock(descriptor, kind)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        raise EngineError(
            f"the file system of {file} does not support file locks: {error.strerror}",
            hint="set DETBUILD_HOME to a directory on a disk of this host",
        ) from error
    return True


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Hold the lock file exclusively; it is released when the block or the process ends."""
    with file_errors(lock):
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            locked(descriptor, lock, fcntl.LOCK_EX)
        except BaseException:
            os.close(descriptor)
            raise
    try:
        yield
    finally:
        os.close(descriptor)
