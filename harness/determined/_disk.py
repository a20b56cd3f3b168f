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
    if fault in _FULL:
        mend = f"make room on the disk that holds {place}; what was stored before is intact"
    else:
        mend = f"check the disk that holds {place}"
    return StorageError(f"cannot write {what} under {place}: {reason}", mend=mend)


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
    try:
        state = os.statvfs(place)
    except OSError:
        return False
    no_files_left = state.f_files > 0 and state.f_favail == 0
    return no_files_left or state.f_bavail * state.f_frsize < _SCARCE
