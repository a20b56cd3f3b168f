"""Waits for a run's worker: forwards signals, keeps its output, reaps, ends what it left running."""

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
KILL_ALL = signal.SIGRTMIN  # to a supervisor: end every process of the run at once
_GRACE = 3.0  # seconds that processes may outlive a worker that failed or was told to stop
_NAMED_AFTER = 10.0  # seconds after which it is said what keeps a run from ending
_KILLING = 60.0  # seconds for the kernel to bury what was killed; it is longer only where a disk hangs
_POLL = 0.05  # seconds between looks, once the worker has ended
_CHECK = 1.0  # seconds between looks before
_EXITING = 30.0  # seconds beyond its timeout for a process to end itself, which can say more of why
_NAMED = 3  # processes in one line
_MIRROR_REST = 1.0  # seconds for a reader of our own output to take what is left
_BLOCK = 1 << 16


class Signals:
    """The signals that came, as bytes in a pipe: no handler does anything, and none is lost."""

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
        """The signals to forward that came since the last call."""
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._reader, _BLOCK)
            came = [number for number in data if number in FORWARDED]
            self.stop_asked |= signal.SIGTERM in came
            self.kill_asked |= KILL_ALL in data
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

    def say(self, text: str) -> None:
        """Add a line of our own to the output."""
        data = f"detbuild: {text}\n".encode()
        self._file.write(data)
        self._mirror.write(data)

    def close(self) -> None:
        self.pipe.close()
        self._file.close()
        self._mirror.close(_MIRROR_REST)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """For how long a run may go on when it has no reason to."""

    exit_timeout: float  # seconds for what its work left running
    work_done: Callable[[], bool]  # whether a trial has said its last word, so that all of its code has run
    parent: int = 0  # the process that a local run belongs to; 0 in a container
    grace: float = 0.0  # seconds to checkpoint and leave, once that one is gone


class Watch:
    """One worker on its way to its end."""

    def __init__(self, worker: Worker, streams: Sequence[Stream], signals: Signals, limits: Limits) -> None:
        self.overdue = False  # it was ended by `exit_timeout`: its work was done
        self._worker, self._streams = worker, streams
        self._signals, self._limits = signals, limits
        self._selector = selectors.DefaultSelector()
        self._orphaned_at = self._done_at = math.inf

    def run(self) -> None:
        """Return when the worker has ended, and with it every process it started."""
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
        """End what has no reason to go on."""
        limits = self._limits
        if limits.parent and self._orphaned_at == math.inf and os.getppid() != limits.parent:
            self._orphaned_at, self._signals.stop_asked = now, True
            self._worker.send(signal.SIGTERM)
        if self._done_at == math.inf and limits.work_done():
            self._done_at = now
        overdue = now - self._done_at > limits.exit_timeout + _EXITING
        if overdue and not self.overdue and self._worker.process.returncode is None:
            self.overdue = True
            self._say("ended by force, since the trial is done")
        if self._signals.kill_asked or self.overdue or now - self._orphaned_at > limits.grace:
            kill_children()

    def _clear(self) -> None:
        """What outlives the worker gets its time, then is killed; what it printed last is read."""
        began = now = time.monotonic()
        named, killed_at = False, math.inf
        while self._step(_POLL if now - began < _GRACE or killed_at < now else _CHECK):
            now = time.monotonic()
            self._check(now)
            if now - killed_at > _KILLING or (now - began > _GRACE and not any(children())):
                return  # or only a process outside of the run still holds its output
            if now - began > self._patience():
                if killed_at == math.inf:
                    self._say("ended by force, since the run is over")
                    killed_at = now
                kill_children()
            elif not named and now - began > _NAMED_AFTER:
                named = True
                self._say(f"the run waits for it, at most {self._limits.exit_timeout:g} s (exit_timeout)")

    def _patience(self) -> float:
        """Seconds that processes may outlive the worker: more if its work was done and they belong to it."""
        signals = self._signals
        if signals.kill_asked or self._orphaned_at < math.inf:
            return 0.0
        if signals.stop_asked or self._worker.process.returncode or all(map(_is_of_hook, children())):
            return min(_GRACE, self._limits.exit_timeout)
        return self._limits.exit_timeout

    def _say(self, what: str) -> None:
        left = [command_of(pid) for pid in children()]
        if left and self._streams:
            more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
            self._streams[-1].say(f"{', '.join(left[:_NAMED])}{more} outlived the training: {what}")

    def _step(self, timeout: float) -> bool:
        """Handle what has come; say whether there is still a process to wait for or output to read."""
        for key, _ in self._selector.select(timeout):
            if isinstance(key.data, Stream) and not key.data.pump():
                self._selector.unregister(key.fileobj)
        for number in self._signals.take():
            self._worker.send(number)
        children_left = reap(self._worker.process)
        return children_left or len(self._selector.get_map()) > 1


def _is_of_hook(pid: int) -> bool:
    return has_variable(pid, HOOK_VARIABLE)
