"""The disk under checkpoints and records: syncing it, and telling its faults from a user's errors."""

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
FEW_INODES = 64  # what a checkpoint and its records need
_SCARCE = 1 << 20  # bytes: a writer that failed with less than this left failed for want of space


def sync_directory(directory: Path) -> None:
    """Make the names in the directory survive a power cut."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def storage_errors(what: str, place: Path) -> Iterator[None]:
    """Turn a fault of the disk that holds `place` into a StorageError; everything else passes as it is."""
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
        hint = f"remove files there, `df -i {place}` counts them; what was stored before is intact"
    elif fault in _FULL:
        hint = f"make room on the disk that holds {place}; what was stored before is intact"
    else:
        hint = f"check the disk that holds {place}"
    return StorageError(f"cannot write {what} under {place}: {reason}", hint=hint)


def no_inodes(place: Path) -> bool:
    """Whether the disk of a path holds as many files as it can; one that sets no limit never does."""
    return _inodes(place) == 0


def lacks_inodes(place: Path) -> bool:
    """Whether a disk that was full lacked inodes, a few of which may have been freed since, and not space."""
    inodes = _inodes(place)
    return inodes is not None and inodes < FEW_INODES and not _lacks_space(place)


def _inodes(place: Path) -> int | None:
    try:
        state = os.statvfs(place)
    except OSError:
        return None
    return state.f_favail if state.f_files > 0 else None


def _fault(error: BaseException, place: Path) -> int | None:
    """The errno of the disk's fault at the root of the error.

    Writers such as torch.save turn ENOSPC into a RuntimeError of their own, hence the look at the space left.
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
