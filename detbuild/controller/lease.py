"""At most one controller an experiment: a lock that dies with its process."""

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
from detbuild.store.files import file_errors
from determined._untrusted import UntrustedDir, UntrustedError, reason_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

_LARGEST = 4096  # bytes of what the holder writes about itself
_PATIENCE = 0.5  # seconds: long enough to outlast somebody who only looks who holds it
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
    """
    with file_errors(file):
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        deadline = time.monotonic() + patience
        while not _lock(descriptor, fcntl.LOCK_EX):
            if time.monotonic() >= deadline:
                raise _held(file)
            time.sleep(0.02)
        with suppress(OSError):  # the disk is full: the lock holds all the same, only without a name on it
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def lease_at_the_end(file: Path) -> AbstractContextManager[int]:
    """The same for an experiment that is over: its controller may still be removing checkpoints."""
    return lease(file, patience=_LAST_WORK)


def holder(file: Path) -> Holder | None:
    """Who holds the lease now; None when nobody does."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EngineError(f"cannot open {file}: {reason_of(error)}", mend="remove it") from error
    try:
        return None if _lock(descriptor, fcntl.LOCK_SH) else _written(file)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


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
        mend=f"nothing needs to be done; `detbuild describe {file.parent.name}` shows how it is going",
    )
