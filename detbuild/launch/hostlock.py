"""Locks in a directory that all users of the host share, and in which each may do what it likes.

To see which slots are free and to give them is one step for the controllers of one user, under a lock of that
user. It only spares them work: no GPU is given twice without it, because each container is compared with all
others before it starts (`detbuild.launch.gpus.won`). So no lock is waited for without a bound, and no lock is
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
_PATIENCE: Final = 10.0  # seconds for another controller to choose and create a container
_POLL: Final = 0.02
_FLOCK: Final = "hhqqi0q"  # struct flock: type, whence, start, length, pid


def lock_directory(preferred: Path = Path("/run/lock")) -> Path:
    """One for the host, whoever the user is and whatever TMPDIR says.

    Debian lets everybody write in /run/lock, other systems root alone. The answer must be the same for all
    users, so it does not depend on what this one may.
    """
    try:
        shared = preferred.stat().st_mode & _SHARED == _SHARED
    except OSError:
        shared = False
    return preferred if shared else Path("/tmp")  # noqa: S108  (opened without following or creating what others own)


class UserLock:
    """One lock for all controllers of a user on this host.

    Where it is not available (the file belongs to another user, the disk has no locks, a process was stopped
    while it held it), the work is done without it.
    """

    def __init__(self, directory: Path, *, patience: float = _PATIENCE) -> None:
        self.file = directory / f"detbuild-gpus-{os.geteuid()}.lock"
        self._patience = self._left = patience

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Hold it, and tell whether it is held; it is waited for once only while another process keeps it."""
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
    """Open a file of this user that no other may open; -1 when there is another in its place."""
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
    """Lock an open file, for as long as it is open; only a process that may write it can do so."""
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, _whole_file(fcntl.F_WRLCK))
    except OSError:
        return False
    return True


def locked_for_writing(file: int) -> bool:
    """Whether a process that may write the file locks it; asks without a lock of its own."""
    try:
        answer = fcntl.fcntl(file, fcntl.F_OFD_GETLK, _whole_file(fcntl.F_RDLCK))
    except OSError:
        return False
    return bool(struct.unpack(_FLOCK, answer)[0] == fcntl.F_WRLCK)


def _whole_file(kind: int) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, 0, 0, 0)
