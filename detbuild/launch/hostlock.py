"""One lock for the host: to see who gets which slots, and to give them, is one step."""

from __future__ import annotations

import fcntl
import os
import re
import stat
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from detbuild.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOCKS = Path("/proc/locks")
_SHARED = stat.S_ISVTX | stat.S_IWOTH


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


@contextmanager
def exclusive(file: Path, *, timeout: float = 10.0) -> Iterator[None]:
    """Hold the host's lock, so that choosing slots and creating their container is one step.

    Raises:
        EngineError: another process held it for `timeout` seconds.
    """
    descriptor = _open(file)
    try:
        deadline = time.monotonic() + timeout
        while not _locked(descriptor):
            if time.monotonic() > deadline:
                raise _held(file, descriptor, timeout)
            time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def _open(file: Path) -> int:
    """Open it for locking only; it is made once and shared by all users.

    The kernel refuses O_CREAT on somebody else's file in a world-writable directory (fs.protected_regular),
    so it is tried without first.
    """
    try:
        return os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise EngineError(f"cannot open {file}: {error.strerror}") from error
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        os.fchmod(descriptor, 0o666)
    except OSError as error:
        raise EngineError(f"cannot make {file}: {error.strerror}") from error
    return descriptor


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _held(file: Path, descriptor: int, timeout: float) -> EngineError:
    """Name the process, which may have been stopped in the very moment in which it held the lock."""
    inode = os.fstat(descriptor).st_ino
    try:
        found = re.search(rf"FLOCK +ADVISORY +WRITE (\d+) \S+:{inode} ", _LOCKS.read_text(encoding="ascii"))
    except (OSError, ValueError):
        found = None
    who = f"process {found[1]}" if found else "another process"
    return EngineError(
        f"{who} has held {file} for {timeout:.0f} s",
        mend=f"if it was stopped: `kill -CONT {found[1]}`" if found else "",
    )
