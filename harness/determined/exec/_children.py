"""The duties of PID 1: adopt what lost its parent, reap what ended, let nothing outlive the run."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of every orphan below, as PID 1 is; so a local run ends as a container does."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """Called in the child before its program: a supervisor that is killed takes its worker along."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def reap(worker: subprocess.Popen[bytes]) -> bool:
    """Collect all processes that have ended, the worker's status into `worker`; say whether any is left."""
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
    """Kill the direct children; theirs become ours, so callers repeat it until none is left."""
    for pid in _children():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _children() -> Iterator[int]:
    own = str(os.getpid())
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # the name, in parentheses, may hold anything; state and parent follow it
            _, parent = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[:2]
            if parent == own:
                yield int(stat.parent.name)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
