"""Writing files so that a crash leaves the old content or the new one, and never a mixture."""

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
    """Say which file could not be written, and tell a full disk from everything else."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM and lacks_inodes(path.parent):
            hint = f"remove files there: `df -i {path.parent}` counts them"
            raise DiskFullError(f"{NO_INODES} to write {path}", hint=hint) from error
        if error.errno in NO_ROOM:
            raise DiskFullError(f"no room to write {path}", hint="free some space on that disk") from error
        raise EngineError(
            f"cannot write {path}: {reason_of(error)}", hint="make the directory writable for your user"
        ) from error


def write_synced(path: Path, data: bytes) -> None:
    """Replace a file of the home in one step; the data is on disk when this returns."""
    write_all_synced(path.parent, {path.name: data})


def write_all_synced(directory: Path, files: Mapping[str, bytes]) -> None:
    """Replace files of the home one by one, in this order; all are on disk when this returns.

    They can be read by their owner alone, from their first moment.
    """
    for name, data in files.items():
        with file_errors(directory / name):
            _replace(directory / name, data, mode=0o600)
    with file_errors(directory):
        sync_directory(directory)


def write_output(path: Path, data: bytes) -> None:
    """Write what the user named: a file is replaced in one step, with the modes that the user's umask says.

    A link is written through, and a device or a pipe is written into, as a shell's `>` does.
    """
    with file_errors(path):
        target = Path(os.path.realpath(path))  # which no loop of links ends
        if target.exists() and not target.is_file():
            with target.open("wb") as file:
                file.write(data)
            return
        _replace(target, data, mode=0o666)
        sync_directory(target.parent)


def private_directory(path: Path) -> None:
    """Make a directory of the home that its owner alone may enter; one that is there is closed to others.

    Raises:
        OSError: It cannot be made.
    """
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        close_to_others(path)


def close_to_others(path: Path) -> None:
    """Take from group and others what they may do with a file or directory; nothing where it is missing."""
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
    """Remove what writers that were killed have left in a directory; one in use is locked, or new."""
    try:
        with os.scandir(directory) as entries:
            left = [entry.path for entry in entries if _TEMPORARY.fullmatch(entry.name)]
    except OSError:
        return  # there is no such directory
    for name in left:
        with suppress(OSError):
            _sweep(name)


def _sweep(name: str) -> None:
    descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if time.time() - os.fstat(descriptor).st_mtime > _NEW:  # before that it may be about to be locked
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(name)  # noqa: PTH108  (as `scandir` gave it)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Put the names in a directory on disk: a new file's name is lost otherwise when the power is cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append_synced(path: Path, line: bytes) -> None:
    """Append one whole line, or nothing at all: a torn one of an earlier crash is cut off first.

    A new file can be read by its owner alone.
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
    """Lock an open file as `fcntl.flock` does; False when another process holds it and `kind` does not wait.

    Raises:
        EngineError: The file system has no locks: nothing would keep two processes apart.
    """
    try:
        fcntl.flock(descriptor, kind)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        raise EngineError(
            f"the file system of {file} has no locks ({error.strerror}), so two processes could change it",
            hint="set DETBUILD_HOME to a directory on a disk of this host",
        ) from error
    return True


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Be the only process that changes what `lock` stands for; it is let go when the process ends, too."""
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
