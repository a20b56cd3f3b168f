"""Waits for a run's worker: passes signals on, keeps its output, reaps, clears away what it left."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import time
from typing import IO, TYPE_CHECKING

from determined.exec._children import kill_children, reap
from determined.exec._output import CappedFile, Mirror

if TYPE_CHECKING:
    from collections.abc import Sequence

    from determined.exec._launch import Worker

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_GRACE = 3.0  # seconds that processes of the worker may outlive it
_KILLING = 2.0  # seconds for the kernel to bury what was killed; one in D state may take longer
_LOOK = 0.05  # seconds between looks, once the worker has ended
_MIRROR_REST = 1.0  # seconds for a reader of our own output to take what is left
_BLOCK = 1 << 16


class Signals:
    """The signals that came, as bytes in a pipe: no handler does anything, and none is lost."""

    def __init__(self) -> None:
        self.stop_asked = False
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (*FORWARDED, signal.SIGCHLD):
            signal.signal(number, lambda _number, _frame: None)

    def fileno(self) -> int:
        return self._reader

    def take(self) -> list[int]:
        """The signals to pass on that came since the last call."""
        with contextlib.suppress(BlockingIOError):
            came = [number for number in os.read(self._reader, _BLOCK) if number in FORWARDED]
            self.stop_asked |= signal.SIGTERM in came
            return came
        return []


class Stream:
    """One of the worker's two outputs on its way into the log file and to our own."""

    def __init__(self, pipe: IO[bytes], file: CappedFile, fd: int) -> None:
        self.pipe = pipe
        self._file = file
        self._mirror = Mirror(fd)

    def pump(self) -> bool:
        """Move what is there; False at the end of the stream."""
        data = os.read(self.pipe.fileno(), _BLOCK)
        self._file.write(data)
        if data:
            self._mirror.write(data)
        return bool(data)

    def close(self) -> None:
        self.pipe.close()
        self._file.close()
        self._mirror.close(_MIRROR_REST)


def watch(worker: Worker, streams: Sequence[Stream], signals: Signals) -> None:
    """Return when the worker has ended, and with it every process it started."""
    with selectors.DefaultSelector() as selector:
        selector.register(signals, selectors.EVENT_READ)
        for stream in streams:
            selector.register(stream.pipe, selectors.EVENT_READ, stream)
        _until_ended(worker, selector, signals)
        _clear(worker, selector, signals)
    for stream in streams:
        stream.close()


def _until_ended(worker: Worker, selector: selectors.BaseSelector, signals: Signals) -> None:
    while worker.process.returncode is None:
        _step(worker, selector, signals, timeout=None)


def _clear(worker: Worker, selector: selectors.BaseSelector, signals: Signals) -> None:
    """What outlives the worker gets a moment, then is killed; what it printed last is read."""
    ended = time.monotonic()
    while _step(worker, selector, signals, timeout=_LOOK):
        age = time.monotonic() - ended
        if age > _GRACE + _KILLING:
            return
        if age > _GRACE:
            kill_children()


def _step(
    worker: Worker, selector: selectors.BaseSelector, signals: Signals, *, timeout: float | None
) -> bool:
    """Handle what has come; say whether there is still a process to wait for or output to read."""
    for key, _ in selector.select(timeout):
        if isinstance(key.data, Stream) and not key.data.pump():
            selector.unregister(key.fileobj)
    for number in signals.take():
        worker.send(number)
    children_left = reap(worker.process)
    return children_left or len(selector.get_map()) > 1
