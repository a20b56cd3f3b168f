"""Appends records to `events.jsonl`: numbered without a gap, and never torn by a full disk.

Writers take turns: the supervisor before the worker and after it, the chief worker in between.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from determined._disk import storage_error, sync_directory
from determined._errors import StorageError
from determined._records import Ended, Line, Record, decode, encode, may_wait, must_sync
from determined._untrusted import kind_of, reason_of, sized

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_MOMENT = 0.05  # seconds
_ROOM = 1 << 16  # bytes that may wait
_LONGEST_RECORD = 16 << 20  # bytes; a longer line is not a record of ours
_LOOKED_BACK = 64 << 20  # bytes in which the newest record of a file must lie
_LINES_BACK = 10_000
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def begin(path: Path) -> bool:
    """Make the event file of a run that begins; False where it has begun before: a run starts once.

    Raises:
        StorageError: the folder cannot be written.
    """
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return False
    except OSError as error:
        raise storage_error("records", path.parent, error.errno or 0) from error
    return True


class EndedCheck:
    """Whether a run's worker has written `ended`. Cheap to ask again and again, and never waits."""

    def __init__(self, path: Path, run: str) -> None:
        self._path, self._run = path, run
        self._size = 0
        self._ended = False

    def has_ended(self) -> bool:
        if not self._ended:
            with suppress(OSError):
                self._poll()
        return self._ended

    def _poll(self) -> None:
        descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            if size != self._size:
                self._size = size
                newest = os.pread(descriptor, _ROOM, max(0, size - _ROOM)).splitlines()
                found = (_line(text, self._run) for text in newest)
                self._ended = any(line is not None and isinstance(line.record, Ended) for line in found)
        finally:
            os.close(descriptor)


class EventFile:
    """The open end of a run's events.

    A record is in the page cache when `append` returns, so it survives the death of the process; records that
    others act on are on disk. Training metrics that come faster than anyone reads wait for each other: those
    of the last moment may die with the process. `last` is the newest record of the run.
    """

    def __init__(self, path: Path, run: str) -> None:
        self.path = path
        self._run = run
        self._fd = _opened(path)
        try:
            self._size = os.fstat(self._fd).st_size
            self._close_torn_line()
            newest = _newest(self._fd, self._size, run)
            sync_directory(path.parent)
        except _NoRecordError:
            os.close(self._fd)
            raise _not_ours(
                path, f"ends with more than {sized(_LOOKED_BACK)} or {_LINES_BACK} lines that are not records"
            ) from None
        except OSError as error:
            os.close(self._fd)
            raise storage_error("records", path.parent, error.errno or 0) from error
        self._lock = threading.Lock()  # a checkpoint is recorded by the thread that has written it
        self._waiting: list[bytes] = []
        self._room = _ROOM
        self._released = 0.0  # when records that may wait were last written, by the records' own clock
        self._release: threading.Timer | None = None  # writes what waits when nothing more comes
        self._seq = newest.seq if newest else 0
        self.last = newest.record if newest else None

    def append(self, record: Record) -> None:
        """Write one record.

        Raises:
            StorageError: the disk is full or failing; the file is as it was before, and may be tried again.
                What waits goes on waiting.
            TypeError: a field holds what JSON cannot carry.
        """
        self.extend((record,))

    def extend(self, records: Sequence[Record]) -> None:
        """Write several records, as if each were appended, with one write at most.

        Raises:
            StorageError, TypeError: as in `append`; none of the records is written, or waits.
        """
        with self._lock:
            self._extend(records)

    def _extend(self, records: Sequence[Record]) -> None:
        now = time.time()
        lines = [encode(Line(seq, self._run, now, one)) for seq, one in enumerate(records, self._seq + 1)]
        self._waiting += lines
        self._room -= sum(map(len, lines))
        try:
            if not all(map(may_wait, records)):
                self._flush(sync=any(map(must_sync, records)))
            elif not 0 <= now - self._released < _MOMENT or self._room < 0:
                self._flush(sync=False)
                self._released = now
            elif self._release is None:
                self._release = threading.Timer(_MOMENT, self._write_what_waits)
                self._release.daemon = True
                self._release.start()
        except StorageError:
            del self._waiting[len(self._waiting) - len(lines) :]
            raise
        self._seq += len(lines)
        self.last = records[-1]

    def _write_what_waits(self) -> None:
        with self._lock:
            self._release = None
            if self._waiting and self._fd >= 0:
                with suppress(StorageError):  # it goes on waiting, and whoever appends next is told
                    self._flush(sync=False)

    def close(self) -> None:
        with self._lock:
            try:
                if self._waiting:
                    self._flush(sync=False)
            finally:
                os.close(self._fd)
                self._fd = -1

    def _flush(self, *, sync: bool) -> None:
        data = b"".join(self._waiting)
        try:
            self._write(data)
            if sync:
                os.fdatasync(self._fd)
        except OSError as error:
            self._take_back()
            raise storage_error("records", self.path.parent, error.errno or 0) from error
        self._size += len(data)
        self._waiting.clear()
        self._room = _ROOM

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    def _take_back(self) -> None:
        """A full disk takes a part of a line; giving bytes back needs no space."""
        os.ftruncate(self._fd, self._size)

    def _close_torn_line(self) -> None:
        """A writer that was killed may have left half a line: readers set it aside once it has an end."""
        if self._size and os.pread(self._fd, 1, self._size - 1) != b"\n":
            self._write(b"\n")
            self._size += 1


class _NoRecordError(Exception):
    """There may be a newest record, but it lies too far back to be looked for."""


def _opened(path: Path) -> int:
    """Open the file of the records; user code may have replaced it by anything."""
    try:
        descriptor = os.open(path, _FLAGS, 0o600)
    except OSError as error:
        if error.errno in {errno.EISDIR, errno.ELOOP, errno.ENXIO}:
            raise _not_ours(path, f"is not a regular file: {reason_of(error)}") from error
        raise storage_error("records", path.parent, error.errno or 0) from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise _not_ours(path, f"is not a regular file: {kind_of(mode)}")
    return descriptor


def _not_ours(path: Path, why: str) -> StorageError:
    return StorageError(
        f"cannot write records to {path}: it {why}",
        hint="change the code of the trial so that it leaves this file alone",
    )


def _newest(fd: int, size: int, run: str) -> Line | None:
    """The newest record of this run, looking backwards over whatever else was appended.

    Raises:
        _NoRecordError: there is none as far back as is looked.
    """
    if not size:
        return None
    with mmap.mmap(fd, size, access=mmap.ACCESS_READ) as data:
        end = size - 1  # the newline that ends the last line
        first = max(0, size - _LOOKED_BACK)
        for _ in range(_LINES_BACK):
            start = data.rfind(b"\n", first, end) + 1
            if not start and first:
                break
            found = _line(data[start:end], run) if end - start <= _LONGEST_RECORD else None
            if found or not start:
                return found
            end = start - 1
    raise _NoRecordError


def _line(text: bytes, run: str) -> Line | None:
    try:
        line = decode(text)
    except ValueError:
        return None
    return line if line.run == run else None
