"""At most one controller an experiment: a lock that dies with its process.

The lock belongs to an open descriptor, so a child process that is born with it holds it at once. Whether an
experiment has a controller is told by that lock alone, never by how long a process takes to start.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detbuild.errors import EngineError, LeaseError
from detbuild.store.files import file_errors, locked
from determined._untrusted import UntrustedDir, UntrustedError, reason_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

_LARGEST = 4096  # bytes of what the holder writes about itself
_PATIENCE = 0.5  # seconds in which a controller that is about to end may end
_LOOKING = 60.0  # seconds for processes that only look who holds it, and may be slow on a loaded host
_LAST_WORK = 20.0  # seconds in which a controller of an experiment that is over has removed what is to go


@dataclass(frozen=True, slots=True)
class Holder:
    pid: int
    host: str


@contextmanager
def lease(file: Path, *, patience: float = _PATIENCE) -> Iterator[int]:
    """Be the controller of an experiment; give the descriptor that holds the lock.

    A child process that inherits it holds the lease too, until it ends.

    Raises:
        LeaseError: another process is, and still was after `patience` seconds.
        EngineError: the file system has no locks.
    """
    with file_errors(file):
        descriptor = os.open(
            file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )  # allowed: a lock, not read
    try:
        _acquire(descriptor, file, patience)
        name_holder(descriptor, os.getpid())
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def inherited_lease(descriptor: int) -> Iterator[None]:
    """Hold the lease that this process was born with; its own children do not inherit it."""
    os.set_inheritable(descriptor, False)
    try:
        yield
    finally:
        os.close(descriptor)


def name_holder(descriptor: int, pid: int) -> None:
    """Write down which process holds the lease, for people."""
    with suppress(OSError):  # the disk is full: the lock holds all the same, only without a name on it
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": pid, "host": socket.gethostname()}).encode(), 0)


def lease_at_the_end(file: Path) -> AbstractContextManager[int]:
    """The same for an experiment that is over: its controller may still be removing checkpoints."""
    return lease(file, patience=_LAST_WORK)


def holder(file: Path) -> Holder | None:
    """Who holds the lease now; None when nobody does."""
    try:
        descriptor = os.open(
            file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        )  # allowed: a lock, not read
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EngineError(f"cannot open {file}: {reason_of(error)}", hint="remove it") from error
    try:
        return None if locked(descriptor, file, fcntl.LOCK_SH | fcntl.LOCK_NB) else _written(file)
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, file: Path, patience: float) -> None:
    """Wait for a holder as long as `patience`, and longer for those that only look: they share the lock."""
    began = time.monotonic()
    while not locked(descriptor, file, fcntl.LOCK_EX | fcntl.LOCK_NB):
        waited = time.monotonic() - began
        if waited >= _LOOKING or (waited >= patience and not _only_looked_at(descriptor, file)):
            raise _held(file)
        time.sleep(0.02)


def _only_looked_at(descriptor: int, file: Path) -> bool:
    shared = locked(descriptor, file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return shared


def _written(file: Path) -> Holder:
    try:
        raw = json.loads(UntrustedDir(file.parent).read(file.name, _LARGEST))
        return Holder(int(raw["pid"]), str(raw["host"]))
    except (UntrustedError, ValueError, KeyError, TypeError, RecursionError):
        return Holder(0, "")  # it took the lease this very moment


def _held(file: Path) -> LeaseError:
    found = _written(file)
    return LeaseError(
        f"experiment {file.parent.name} already has a controller: process {found.pid} on {found.host}",
        hint=f"nothing needs to be done; `detbuild describe {file.parent.name}` shows how it is going",
    )
