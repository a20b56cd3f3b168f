"""Locks in a directory that all users of the host share, and none controls.

The controllers of one user read free slots and allocate them under a lock of that user. It only saves work:
without it no GPU is given twice either, because each container is compared with all
others before it starts (`detbuild.launch.gpus.won`). So each wait for a lock has a timeout, and no lock is
shared between users, who could hold it forever.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHARED = stat.S_ISVTX | stat.S_IWOTH
_PATIENCE: Final = 10.0  # seconds for another controller to allocate and create a container
_POLL: Final = 0.02
_FLOCK: Final = "hhqqi0q"  # struct flock: type, whence, start, length, pid


def lock_directory(preferred: Path = Path("/run/lock")) -> Path:
    """Return the host's lock directory, independent of user and TMPDIR.

    Debian lets all users write in /run/lock, other systems only root. The result must be the same for all
    users, so it does not depend on this user's permissions.
    """
    try:
        shared = preferred.stat().st_mode & _SHARED == _SHARED
    except OSError:
        shared = False
    return preferred if shared else Path("/tmp")  # noqa: S108  (opened without following or creating what others own)


class UserLock:
    """One lock for all controllers of a user on this host.

    If it is not available (the file belongs to another user, the disk has no locks, its holder was stopped),
    the work is done without it.
    """

    def __init__(self, directory: Path, *, patience: float = _PATIENCE) -> None:
        self.file = directory / f"detbuild-gpus-{os.geteuid()}.lock"
        self._patience = self._left = patience

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Hold the lock and yield whether it is held; after a timeout, stop waiting for that holder."""
        descriptor = _open_own(self.file)
        try:
            yield descriptor >= 0 and self._acquired(descriptor)
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def _acquired(self, descriptor: int) -> bool:
        deadline = time.monotonic() + self._left
        while not (acquired := _locked(descriptor)) and time.monotonic() < deadline:
            time.sleep(_POLL)
        self._left = self._patience if acquired else 0.0
        return acquired


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another process holds it, or the disk has no locks
        return False
    return True


def _open_own(file: Path) -> int:
    """Open a private file of this user; -1 if another file has its path."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(file, flags, 0o600)
    except OSError:
        return -1
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_uid == os.geteuid():
        return descriptor
    os.close(descriptor)
    return -1


def lock_for_writing(file: int) -> bool:
    """Lock an open file until it is closed; needs write permission."""
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, _whole_file(fcntl.F_WRLCK))
    except OSError:
        return False
    return True


def locked_for_writing(file: int) -> bool:
    """Whether a process with write permission holds the lock; takes no lock itself."""
    try:
        answer = fcntl.fcntl(file, fcntl.F_OFD_GETLK, _whole_file(fcntl.F_RDLCK))
    except OSError:
        return False
    return bool(struct.unpack(_FLOCK, answer)[0] == fcntl.F_WRLCK)


def _whole_file(kind: int) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, 0, 0, 0)
