"""The end of a process: what delays its exit is named and limited, and what outlives a run is killed.

Python joins threads and child processes and calls exit handlers before a process ends. One that hangs would
block a run and its slots forever. A supervisor has the duties of PID 1: it adopts orphans and reaps zombies.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import math
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from types import FrameType

_NAMED_AFTER = 10.0  # seconds
_POLL = 1.0  # seconds between two polls of the main thread
_BEYOND = 10.0  # more seconds, after which the kernel ends a process that runs no Python code any more
_NAMED = 3  # in one line
_begun = threading.Event()
_HARNESS = f"{Path(__file__).parents[1]}{os.sep}"
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_PR_SET_CHILD_SUBREAPER = 36
_KILL_POLL = 0.02  # seconds between two polls of killed processes
_SHOWN = 80  # characters of a command line


def end_in_time(seconds: float, exit_code: Callable[[], int | None] = lambda: None) -> None:
    """End this process at most that many seconds after the end of its program.

    Args:
        seconds: for threads, child processes and exit handlers.
        exit_code: of a process that is ended so; None: 1 after an uncaught exception, else 0.
    """
    if _begun.is_set():
        return  # set once in a process
    _begun.set()
    atexit.register(_end_by_kernel, seconds + _BEYOND)  # for hangs after this, in which no thread runs
    _Leaving(seconds, exit_code).start()


class _Leaving(threading.Thread):
    def __init__(self, seconds: float, exit_code: Callable[[], int | None]) -> None:
        super().__init__(name="determined-leaving", daemon=True)
        self._seconds, self._exit_code = seconds, exit_code

    def run(self) -> None:
        while not _over():
            time.sleep(_POLL)
        _end_by_kernel(self._seconds + _BEYOND)
        if self._seconds > _NAMED_AFTER:
            time.sleep(_NAMED_AFTER)
            _write(f"the run is done; waiting at most {self._seconds:g} s (exit_timeout) for {_held_by()}")
        time.sleep(max(0.0, self._seconds - _NAMED_AFTER))
        _write(f"killed after {self._seconds:g} s (exit_timeout); the run was waiting for {_held_by()}")
        code = self._exit_code()
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # user code may have replaced or closed it
                stream.flush()
        os._exit(int(getattr(sys, "last_value", None) is not None) if code is None else code)


def _end_by_kernel(seconds: float) -> None:
    """End this process by SIGALRM then: if a library's exit hangs, no Python code can run."""
    libc = ctypes.CDLL(None)
    libc.signal(signal.SIGALRM, 0)  # SIG_DFL; Python can set it in the main thread only
    libc.alarm(math.ceil(seconds))


def _write(text: str) -> None:
    with suppress(OSError):
        os.write(2, f"detbuild: {text}\n".encode())


def _over() -> bool:
    """Whether the main thread is exiting: Python joins thread pools first, then other threads."""
    return getattr(threading, "_SHUTTING_DOWN", False) or not threading.main_thread().is_alive()


def _main_frame() -> FrameType | None:
    return sys._current_frames().get(threading.main_thread().ident or 0)  # noqa: SLF001  (documented, no other name)


def _held_by() -> str:
    """Describe what delays the exit of the process."""
    found = [*_threads(), *map(command_of, children())]
    if not found:
        frame = _main_frame()
        found = [f"an exit handler{_place(frame)}"] if frame is not None else ["code outside of Python"]
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return ", ".join(found[:_NAMED]) + more


def _threads() -> Iterator[str]:
    frames = sys._current_frames()  # noqa: SLF001
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.main_thread():
            yield f"thread {thread.name}{_place(frames.get(thread.ident or 0))}"


def _place(frame: FrameType | None) -> str:
    """Return a thread's innermost line outside the standard library, if any."""
    inner = frame
    while frame is not None and _is_library(frame.f_code.co_filename):
        frame = frame.f_back
    shown = frame or inner
    if shown is None:
        return ""
    return f" ({Path(shown.f_code.co_filename).name}:{shown.f_lineno} in {shown.f_code.co_name})"


def _is_library(file: str) -> bool:
    return (
        file.startswith((_HARNESS, "<frozen", str(Path(os.__file__).parent))) and "site-packages" not in file
    )


def adopt_orphans() -> None:
    """Become the parent of all orphans below, like PID 1, so that a local run ends like a container."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """Kill this process when its parent dies; called in the child before its program starts."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def reap(worker: subprocess.Popen[bytes]) -> bool:
    """Reap all ended processes, and set the worker's status; return whether any child is left."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        if ended is None:
            return True
        if ended.si_pid == worker.pid:
            worker.poll()
        else:
            os.waitpid(ended.si_pid, 0)


def kill_children() -> None:
    """Kill all processes of the run; callers repeat it until none is left.

    PID 1 of a container reaches all at once. Elsewhere direct children are killed, and theirs are adopted.
    """
    if os.getpid() == 1:
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        return
    for pid in children():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def end_children(seconds: float) -> bool:
    """Kill and reap all descendants; return whether this succeeded in that many seconds.

    For a process that does not need the status of a child.
    """
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                continue
        if not any(children()):
            return True
        if time.monotonic() > deadline:
            return False
        kill_children()
        time.sleep(_KILL_POLL)


def children() -> Iterator[int]:
    """Yield the PIDs of this process's children."""
    own = str(os.getpid())
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # the name, in parentheses, may hold anything; state and parent follow it
            state, parent = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[:2]
            if parent == own and state != "Z":
                yield int(stat.parent.name)


def command_of(pid: int) -> str:
    """Return the PID and the shortened command line of a process."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        words = []
    text = " ".join(" ".join(word.decode(errors="replace") for word in words).split())
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    return f"process {pid}" + (f" ({shown})" if shown else "")


def has_variable(pid: int, name: str) -> bool:
    """Whether a process was started with this environment variable."""
    try:
        return any(
            item.startswith(f"{name}=".encode())
            for item in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        )
    except OSError:
        return False


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
