"""The lease of an experiment: a lock that dies with its process, so that it has at most one controller.

The lock belongs to an open descriptor, so a child process inherits it at once. Only the lock tells whether an
experiment has a controller, never how long a process takes to start. `blocked_reason` tells what blocks an
experiment and its journal cannot show.
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
from detbuild.store.state import State, load
from determined._contract.checkpoints import NO_INODES, no_inodes
from determined._contract.untrusted import UntrustedDir, UntrustedError, reason_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.state import ExperimentState

_LARGEST = 4096  # bytes of the holder's PID and host
_PATIENCE = 0.5  # seconds to wait for a controller that is about to end
_LOOKING = 60.0  # seconds to wait for readers of the holder, which are slow on a loaded host
_LAST_WORK = 20.0  # seconds to wait for the last deletions of an ended experiment


@dataclass(frozen=True, slots=True)
class Holder:
    pid: int
    host: str


@contextmanager
def lease(file: Path, *, patience: float = _PATIENCE) -> Iterator[int]:
    """Take the lease of an experiment; yield the descriptor that holds the lock.

    A child process that inherits the descriptor holds the lease too, until it ends.

    Raises:
        LeaseError: Another process still holds it after `patience` seconds.
        EngineError: The file system does not support locks.
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
    """Hold the lease that this process inherited; its children do not inherit it."""
    os.set_inheritable(descriptor, False)
    try:
        yield
    finally:
        os.close(descriptor)


def name_holder(descriptor: int, pid: int) -> None:
    """Write which process holds the lease into the lock file, for error messages."""
    with suppress(OSError):  # disk full: the lock holds without a name
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": pid, "host": socket.gethostname()}).encode(), 0)


def lease_at_the_end(file: Path) -> AbstractContextManager[int]:
    """Take the lease of an ended experiment, whose controller may still be deleting checkpoints."""
    return lease(file, patience=_LAST_WORK)


def holder(file: Path) -> Holder | None:
    """Return the holder of the lease, or None if it is free."""
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
    """Wait `patience` seconds for an exclusive holder, and longer for readers, which share the lock."""
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
        return Holder(0, "")  # race: it has just taken the lease


def _held(file: Path) -> LeaseError:
    found = _written(file)
    return LeaseError(
        f"experiment {file.parent.name} already has a controller: process {found.pid} on {found.host}",
        hint=f"run `detbuild describe {file.parent.name}` to see its progress",
    )


def blocked_reason(folder: ExperimentFolder, state: ExperimentState) -> str:
    """Return why an experiment that should run is blocked, and how to repair that; "" if it is not."""
    if _at_rest(state):
        return ""
    if no_inodes(folder.path):
        return (
            f"{NO_INODES} on the disk of {folder.path}: nothing is decided or started until files are removed"
        )
    if _full(folder.path):
        return f"the disk of {folder.path} is full: nothing is decided or started until space is free"
    if holder(folder.lock_file) is None and not _at_rest(load(folder)):  # race: it may just have ended
        return f"no controller is running: detbuild resume {folder.id} (log: {folder.log_file})"
    return ""


def _at_rest(state: ExperimentState) -> bool:
    return state.over or state.state == State.PAUSED


def _full(path: Path) -> bool:
    found = os.statvfs(path)
    blocks = found.f_bavail if os.geteuid() else found.f_bfree
    return blocks == 0
