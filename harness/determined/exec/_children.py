"""The duties of PID 1: adopt orphans, reap zombies, and kill processes that outlive the run."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_PR_SET_CHILD_SUBREAPER = 36
_POLL = 0.02  # seconds between two polls of killed processes
_SHOWN = 80  # characters of a command line


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
        time.sleep(_POLL)


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
