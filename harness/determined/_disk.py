"""The disk of checkpoints and records: sync, and how to distinguish its faults from user errors."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from determined._errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE}
_FULL = {errno.ENOSPC, errno.EDQUOT}
NO_INODES = "no inodes left"
FEW_INODES = 64  # needed by a checkpoint and its records
_SCARCE = (
    1 << 20
)  # bytes: a writer that failed with less free space than this failed because the disk is full


def sync_directory(directory: Path) -> None:
    """Sync the directory's entries to disk."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def storage_errors(what: str, place: Path) -> Iterator[None]:
    """Convert a fault of the disk of `place` to a StorageError; re-raise other errors unchanged."""
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        fault = _fault(error, place)
        if fault is None:
            raise
        raise storage_error(what, place, fault) from error


def storage_error(what: str, place: Path, fault: int) -> StorageError:
    reason = os.strerror(fault)
    if fault in _FULL and lacks_inodes(place):
        reason = NO_INODES
        hint = f"remove files there, check with `df -i {place}`; earlier files are intact"
    elif fault in _FULL:
        hint = f"free space on the disk of {place}; earlier files are intact"
    else:
        hint = f"check the disk of {place}"
    return StorageError(f"cannot write {what} under {place}: {reason}", hint=hint)


def no_inodes(place: Path) -> bool:
    """Whether the disk of a path has no free inodes; False for a file system without a limit."""
    return _inodes(place) == 0


def lacks_inodes(place: Path) -> bool:
    """Whether a full disk lacked inodes instead of space; a few of them may have been freed since."""
    inodes = _inodes(place)
    return inodes is not None and inodes < FEW_INODES and not _lacks_space(place)


def _inodes(place: Path) -> int | None:
    try:
        state = os.statvfs(place)
    except OSError:
        return None
    return state.f_favail if state.f_files > 0 else None


def _fault(error: BaseException, place: Path) -> int | None:
    """Return the errno of the disk fault that caused the error.

    Writers such as torch.save convert ENOSPC to a RuntimeError, so the free space is checked too.
    """
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.errno in _FAULTS:
            return link.errno
        link = link.__cause__ or link.__context__
    return errno.ENOSPC if isinstance(error, RuntimeError) and _is_full(place) else None


def _is_full(place: Path) -> bool:
    return no_inodes(place) or _lacks_space(place)


def _lacks_space(place: Path) -> bool:
    try:
        state = os.statvfs(place)
    except OSError:
        return False
    return state.f_bavail * state.f_frsize < _SCARCE
