"""Files of a home: atomic writes, locks, and readers that report damage by file and cause.

A write is synced, and a crash leaves either the old or the new content.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import stat
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from detbuild.errors import DiskFullError, EngineError
from determined._contract.checkpoints import NO_INODES, lacks_inodes
from determined._contract.untrusted import UntrustedDir, UntrustedError, reason_of, sized

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import BinaryIO

_TEMPORARY: Final = re.compile(r"\..+\.[0-9]+\.tmp")
_NEW: Final = 3600.0  # seconds
_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS})
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_BLOCK = 1 << 20
_LARGEST = 1 << 30  # bytes of the file
_LONGEST = 64 << 20  # bytes of one line; a search of many trials may write long ones
LARGEST_DOCUMENT: Final = 64 << 20  # bytes of one JSON document of an experiment
_REPAIR: Final = "repair it, or move the experiment's folder aside"
T = TypeVar("T")


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Translate OSError to an EngineError that names the file, or a DiskFullError if the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM and lacks_inodes(path.parent):
            hint = f"remove files there: `df -i {path.parent}` counts them"
            raise DiskFullError(f"{NO_INODES} to write {path}", hint=hint) from error
        if error.errno in _NO_ROOM:
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
        # Unlike `resolve`, no error for a loop of links.
        target = Path(os.path.realpath(path))  # allowed: named by the user
        if target.exists() and not target.is_file():  # allowed: named by the user
            with target.open("wb") as file:  # allowed: named by the user
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
        path.mkdir(mode=0o700)  # allowed: in no mount
    except FileExistsError:
        close_to_others(path)


def close_to_others(path: Path) -> None:
    """Remove all permissions of group and others from a file or directory, if it exists."""
    with suppress(FileNotFoundError):
        seen = path.lstat()  # allowed: in no mount
        ours = seen.st_uid == os.geteuid() and not stat.S_ISLNK(seen.st_mode)
        if ours and stat.S_IMODE(seen.st_mode) & 0o077:
            path.chmod(stat.S_IMODE(seen.st_mode) & 0o700)  # allowed: in no mount


def _replace(path: Path, data: bytes, *, mode: int) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, mode)  # allowed: in no mount
        with os.fdopen(descriptor, "wb") as file:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)  # allowed: in no mount
    except OSError:
        temporary.unlink(missing_ok=True)  # allowed: in no mount
        raise


def sweep_temporaries(directory: Path) -> None:
    """Remove temporary files of killed writers from a directory; one in use is locked, or new."""
    try:
        with os.scandir(directory) as entries:  # allowed: in no mount
            left = [entry.path for entry in entries if _TEMPORARY.fullmatch(entry.name)]
    except OSError:
        return  # no such directory
    for name in left:
        with suppress(OSError):
            _sweep(name)


def _sweep(name: str) -> None:
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags)  # allowed: in no mount
    try:
        if time.time() - os.fstat(descriptor).st_mtime > _NEW:  # a new one may not be locked yet
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(name)  # noqa: PTH108  (as `scandir` gave it)  # allowed: in no mount
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Sync a directory, so that the names of new files survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)  # allowed: in no mount
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
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, 0o600)  # allowed: in no mount


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
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)  # allowed: in no mount
        try:
            locked(descriptor, lock, fcntl.LOCK_EX)
        except BaseException:
            os.close(descriptor)
            raise
    try:
        yield
    finally:
        os.close(descriptor)


class LineFile:
    """Yields each complete line once. A line that a crash has torn is truncated by the next writer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def new(self) -> Iterator[bytes]:
        """Yield the lines completed since the last call; none if there is no file.

        A line at which the caller was interrupted is repeated.

        Raises:
            EngineError: It is not a regular file, or too large.
        """
        while lines := self._block():
            for line in lines:
                yield line + b"\n"
                self._offset += len(line) + 1

    def _block(self) -> list[bytes]:
        """Read the next complete lines; close the file, since the caller may never call again."""
        try:
            with UntrustedDir(self._path.parent).open(self._path.name, limit=_LARGEST) as file:
                file.seek(self._offset)
                return self._whole(file).split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        except UntrustedError as error:
            raise EngineError(f"cannot read {self._path}: it {error.reason}", hint=_REPAIR) from error

    def _whole(self, file: BinaryIO) -> bytes:
        """Read a block, or more until a line is complete."""
        blocks = [file.read(_BLOCK)]
        while blocks[-1] and b"\n" not in blocks[-1]:
            if len(blocks) * _BLOCK > _LONGEST:
                why = f"it has a line of more than {sized(_LONGEST)} at byte {self._offset}"
                raise EngineError(f"cannot read {self._path}: {why}", hint=_REPAIR)
            blocks.append(file.read(_BLOCK))
        return b"".join(blocks)


def read_document(file: Path, parse: Callable[[object], T], *, hint: str = _REPAIR) -> T:
    """Read and parse a JSON document of at most 64 MiB, without following links.

    Args:
        parse: Raises ValueError for an invalid document.
        hint: Shown if the document is damaged.

    Raises:
        FileNotFoundError: The file does not exist.
        EngineError: It is damaged.
    """
    try:
        return parse(json.loads(UntrustedDir(file.parent).read(file.name, LARGEST_DOCUMENT)))
    except FileNotFoundError:
        raise
    except (UntrustedError, ValueError, RecursionError) as error:
        raise EngineError(f"cannot read {file}: {_why(error)}", hint=hint) from error


def _why(error: Exception) -> str:
    if isinstance(error, UntrustedError):
        return f"it {error.reason}"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, (json.JSONDecodeError, UnicodeDecodeError)):
        return f"it is not JSON ({error})"
    return f"it {error}"
