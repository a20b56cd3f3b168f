"""Appends records to `events.jsonl`: numbered without gaps, and never torn by a full disk.

Writers take turns: the supervisor before the worker and after it, the chief worker in between. A note next to
the file names a spare checkpoint, which the supervisor records if the worker was killed.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import stat
import threading
import time
import weakref
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from determined._contract.checkpoints import storage_error, sync_directory
from determined._contract.errors import StorageError
from determined._contract.records import Checkpoint, Ended, Line, Record, decode, encode, may_wait, must_sync
from determined._contract.run_info import SPARE_FILE
from determined._contract.untrusted import kind_of, reason_of, sized

if TYPE_CHECKING:
    from collections.abc import Sequence

    from determined._contract.run_info import RunInfo

_MOMENT = 0.05  # seconds
_BUFFER = 1 << 16  # bytes that may be buffered
_LONGEST_RECORD = 16 << 20  # bytes; a longer line is not a record
_LOOKED_BACK = 64 << 20  # bytes at the end of a file that must contain its newest record
_LINES_BACK = 10_000
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def begin(path: Path) -> bool:
    """Create the event file of a new run; return False if it exists: a run starts only once.

    Raises:
        StorageError: the folder is not writable.
    """
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return False
    except OSError as error:
        raise storage_error("records", path.parent, error.errno or 0) from error
    return True


class EndedCheck:
    """Whether a run's worker has written `ended`. Cheap to poll, and never blocks."""

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
                newest = os.pread(descriptor, _BUFFER, max(0, size - _BUFFER)).splitlines()
                found = (_line(text, self._run) for text in newest)
                self._ended = any(line is not None and isinstance(line.record, Ended) for line in found)
        finally:
            os.close(descriptor)


class EventFile:
    """The event file of a run, open for appending.

    A record is in the page cache when `append` returns, so it survives the death of the process; records
    that others act on are on disk. Frequent training metrics are buffered for a moment, and the last of them
    may be lost with the process. `last` is the newest record of the run.
    """

    def __init__(self, path: Path, run: str) -> None:
        self.path = path
        self._run = run
        self._fd = _opened(path)
        self._close_descriptor = weakref.finalize(self, os.close, self._fd)  # also when it is not closed
        self._close_descriptor.atexit = False  # handlers that run at exit may still report
        try:
            self._size = os.fstat(self._fd).st_size
            self._close_torn_line()
            newest = _newest(self._fd, self._size, run)
            sync_directory(path.parent)
        except _NoRecordError:
            self._close_descriptor()
            raise _not_ours(
                path, f"ends with more than {sized(_LOOKED_BACK)} or {_LINES_BACK} lines that are not records"
            ) from None
        except OSError as error:
            self._close_descriptor()
            raise storage_error("records", path.parent, error.errno or 0) from error
        self._lock = threading.Lock()  # a checkpoint is recorded by the thread that wrote it
        self._buffer: list[bytes] = []
        self._free = _BUFFER
        self._released = 0.0  # when buffered records were last written, by the records' clock
        self._release: threading.Timer | None = None  # flushes the buffer if no other record does
        self._seq = newest.seq if newest else 0
        self.last = newest.record if newest else None

    def append(self, record: Record) -> None:
        """Write one record.

        Raises:
            StorageError: the disk is full or failing; the file is unchanged, and the call may be retried.
                Buffered records stay buffered.
            TypeError: a field is not JSON-serializable.
        """
        self.extend((record,))

    def extend(self, records: Sequence[Record]) -> None:
        """Write several records as `append` does, with one write at most.

        Raises:
            StorageError, TypeError: as in `append`; none of the records is written or buffered.
        """
        with self._lock:
            self._extend(records)

    def _extend(self, records: Sequence[Record]) -> None:
        now = time.time()
        lines = [encode(Line(seq, self._run, now, one)) for seq, one in enumerate(records, self._seq + 1)]
        self._buffer += lines
        self._free -= sum(map(len, lines))
        try:
            if not all(map(may_wait, records)):
                self._flush(sync=any(map(must_sync, records)))
            elif not 0 <= now - self._released < _MOMENT or self._free < 0:
                self._flush(sync=False)
                self._released = now
            elif self._release is None:
                self._release = threading.Timer(_MOMENT, self._flush_later)
                self._release.daemon = True
                self._release.start()
        except StorageError:
            del self._buffer[len(self._buffer) - len(lines) :]
            raise
        self._seq += len(lines)
        self.last = records[-1]

    def _flush_later(self) -> None:
        with self._lock:
            self._release = None
            if self._buffer and self._fd >= 0:
                with suppress(StorageError):  # it stays buffered, and the next `append` raises
                    self._flush(sync=False)

    def close(self) -> None:
        with self._lock:
            try:
                if self._buffer:
                    self._flush(sync=False)
            finally:
                self._close_descriptor()
                self._fd = -1

    def _flush(self, *, sync: bool) -> None:
        data = b"".join(self._buffer)
        try:
            self._write(data)
            if sync:
                os.fdatasync(self._fd)
        except OSError as error:
            self._take_back()
            raise storage_error("records", self.path.parent, error.errno or 0) from error
        self._size += len(data)
        self._buffer.clear()
        self._free = _BUFFER

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    def _take_back(self) -> None:
        """Truncate a partly written line; this needs no disk space."""
        os.ftruncate(self._fd, self._size)

    def _close_torn_line(self) -> None:
        """End the half line of a killed writer, so that readers reject it."""
        if self._size and os.pread(self._fd, 1, self._size - 1) != b"\n":
            self._write(b"\n")
            self._size += 1


class _NoRecordError(Exception):
    """The newest record, if any, lies too far back."""


def _opened(path: Path) -> int:
    """Open the event file; user code may have replaced it by anything."""
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
        hint="change the code of the trial so that it does not touch this file",
    )


def _newest(fd: int, size: int, run: str) -> Line | None:
    """Return the newest record of this run; lines before it are searched backwards.

    Raises:
        _NoRecordError: none found within the limits.
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


def encode_spare(draft: Path, checkpoint: Checkpoint) -> bytes:
    """Encode the note: the checkpoint's draft, and its record."""
    return json.dumps({"draft": draft.name, "checkpoint": asdict(checkpoint)}, default=str).encode()


def announce_spare(info: RunInfo, events: EventFile) -> None:
    """Publish and record the spare checkpoint of a killed worker."""
    note = Path(info.run_dir) / SPARE_FILE
    if not note.is_file():
        return
    from determined._contract import checkpoints

    found = json.loads(note.read_bytes())
    checkpoint = Checkpoint(**found["checkpoint"])
    draft = Path(info.checkpoint_dir) / Path(found["draft"]).name
    if draft.is_dir():  # otherwise it was recorded already
        checkpoints.publish(draft, checkpoint.uuid)
        events.append(checkpoint)
    note.unlink()
