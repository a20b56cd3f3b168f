"""Waits for a run's worker: forwards signals, stores its output, reaps, and kills leftover processes."""

from __future__ import annotations

import contextlib
import math
import os
import selectors
import signal
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from determined.exec._children import children, command_of, has_variable, kill_children, reap
from determined.exec._launch import HOOK_VARIABLE
from determined.exec._output import CappedFile, Mirror

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from determined.exec._launch import Worker

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
KILL_ALL = signal.SIGRTMIN  # to a supervisor: kill all processes of the run
_GRACE = 3.0  # seconds that processes may outlive a worker that failed or was asked to stop
_NAMED_AFTER = 10.0  # seconds after which processes that delay the end are logged
_KILLING = 60.0  # seconds for the kernel to end killed processes; it takes longer only if a disk hangs
_POLL = 0.05  # seconds between polls after the worker has ended
_CHECK = 1.0  # seconds between polls before that
_EXITING = 30.0  # seconds after the timeout for a process to end itself, with a better message
_NAMED = 3  # processes in one line
_MIRROR_REST = 1.0  # seconds for a reader of our own output to read the rest
_BLOCK = 1 << 16


class Signals:
    """Received signals, as bytes in a pipe: handlers do nothing, and no signal is lost."""

    def __init__(self) -> None:
        self.stop_asked = False
        self.kill_asked = False
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (*FORWARDED, KILL_ALL, signal.SIGCHLD):
            signal.signal(number, lambda _number, _frame: None)

    def fileno(self) -> int:
        return self._reader

    def take(self) -> list[int]:
        """Return the signals to forward since the last call."""
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._reader, _BLOCK)
            came = [number for number in data if number in FORWARDED]
            self.stop_asked |= signal.SIGTERM in came
            self.kill_asked |= KILL_ALL in data
            return came
        return []


class Stream:
    """One of the worker's two outputs, copied to its log file and to our own output."""

    def __init__(self, pipe: IO[bytes], file: CappedFile, fd: int) -> None:
        self.pipe = pipe
        self._file = file
        self._mirror = Mirror(fd)

    def pump(self) -> bool:
        """Copy available data; return False at the end of the stream."""
        data = os.read(self.pipe.fileno(), _BLOCK)
        self._file.write(data)
        if data:
            self._mirror.write(data)
        return bool(data)

    def add_line(self, text: str) -> None:
        """Add one of our own lines to the output."""
        data = f"detbuild: {text}\n".encode()
        self._file.write(data)
        self._mirror.write(data)

    def close(self) -> None:
        self.pipe.close()
        self._file.close()
        self._mirror.close(_MIRROR_REST)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Time limits of a run whose work is done, or whose parent is gone."""

    exit_timeout: float  # seconds for leftover processes and threads
    work_done: Callable[[], bool]  # whether a trial has written `ended`, after all of its code
    parent: int = 0  # PID of a local run's parent; 0 in a container
    grace: float = 0.0  # seconds to checkpoint and exit after the parent's death


class Watch:
    """Waits for one worker and everything it started."""

    def __init__(self, worker: Worker, streams: Sequence[Stream], signals: Signals, limits: Limits) -> None:
        self.overdue = False  # killed after `exit_timeout`, with its work done
        self._worker, self._streams = worker, streams
        self._signals, self._limits = signals, limits
        self._selector = selectors.DefaultSelector()
        self._orphaned_at = self._done_at = math.inf

    def run(self) -> None:
        """Return when the worker and all processes it started have ended."""
        with self._selector as selector:
            selector.register(self._signals, selectors.EVENT_READ)
            for stream in self._streams:
                selector.register(stream.pipe, selectors.EVENT_READ, stream)
            while self._worker.process.returncode is None:
                self._step(_CHECK)
                self._check(time.monotonic())
            self._clear()
        for stream in self._streams:
            stream.close()

    def _check(self, now: float) -> None:
        """Kill a run that is done or orphaned."""
        limits = self._limits
        if limits.parent and self._orphaned_at == math.inf and os.getppid() != limits.parent:
            self._orphaned_at, self._signals.stop_asked = now, True
            self._worker.send(signal.SIGTERM)
        if self._done_at == math.inf and limits.work_done():
            self._done_at = now
        overdue = now - self._done_at > limits.exit_timeout + _EXITING
        if overdue and not self.overdue and self._worker.process.returncode is None:
            self.overdue = True
            self._log_leftover("killed, since the trial is done")
        if self._signals.kill_asked or self.overdue or now - self._orphaned_at > limits.grace:
            kill_children()

    def _clear(self) -> None:
        """Wait for processes that outlive the worker, then kill them; read their last output."""
        began = now = time.monotonic()
        named, killed_at = False, math.inf
        while self._step(_POLL if now - began < _GRACE or killed_at < now else _CHECK):
            now = time.monotonic()
            self._check(now)
            if now - killed_at > _KILLING or (now - began > _GRACE and not any(children())):
                return  # or only a process outside of the run still has its output open
            if now - began > self._patience():
                if killed_at == math.inf:
                    self._log_leftover("killed, since the run has ended")
                    killed_at = now
                kill_children()
            elif not named and now - began > _NAMED_AFTER:
                named = True
                self._log_leftover(f"waiting at most {self._limits.exit_timeout:g} s (exit_timeout)")

    def _patience(self) -> float:
        """Seconds that processes may outlive the worker: more if it succeeded and started them itself."""
        signals = self._signals
        if signals.kill_asked or self._orphaned_at < math.inf:
            return 0.0
        if signals.stop_asked or self._worker.process.returncode or all(map(_is_of_hook, children())):
            return min(_GRACE, self._limits.exit_timeout)
        return self._limits.exit_timeout

    def _log_leftover(self, what: str) -> None:
        left = [command_of(pid) for pid in children()]
        if left and self._streams:
            more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
            self._streams[-1].add_line(f"{', '.join(left[:_NAMED])}{more} outlived the training: {what}")

    def _step(self, timeout: float) -> bool:
        """Handle output and signals; return whether a process or an output is still open."""
        for key, _ in self._selector.select(timeout):
            if isinstance(key.data, Stream) and not key.data.pump():
                self._selector.unregister(key.fileobj)
        for number in self._signals.take():
            self._worker.send(number)
        children_left = reap(self._worker.process)
        return children_left or len(self._selector.get_map()) > 1


def _is_of_hook(pid: int) -> bool:
    return has_variable(pid, HOOK_VARIABLE)
