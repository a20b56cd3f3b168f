"""Starts the processes of one launch by torch's elastic launcher, and waits for their end.

The process tree: this launcher, torch's launcher, one `wrap_rank` per rank, and its program. Signals are sent
directly to the programs, since torch's launcher would kill them after 30 seconds.
"""

from __future__ import annotations

import importlib.util
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from determined._exit_codes import ExitCode
from determined._ranks import GROUP_DIR_VARIABLE
from determined._records import Ended, ExitReason
from determined.exec import ENTRY
from determined.exec._children import adopt_orphans, die_with_parent, end_children
from determined.exec._watch import Signals
from determined.launch._failure import End, Ends, Failure, pids_of
from determined.launch._hang import TIMEOUT, TIMEOUT_VARIABLE, Watchdog
from determined.launch._reports import EndReported, Inbox, RankExited, RankStarted, Report

if TYPE_CHECKING:
    from collections.abc import Mapping

_GRACE = 5.0  # seconds for the other ranks to report their ends after a failure
_POLL = 0.5  # seconds between polls of the ranks
_KILLING = 60.0  # seconds for the kernel to end killed processes
# Not `-m torch.distributed.run`, which puts the context first on the path: torch would import its json.py.
# The ranks report their ends to this launcher, so torch's own summary is hidden.
_TORCH = """
import sys
sys.path[:] = filter(None, sys.path)
import logging
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main
logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
try:
    main()
except ChildFailedError:
    sys.exit(1)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """A command and its number of processes."""

    command: tuple[str, ...]  # of one rank
    size: int
    options: tuple[str, ...] = ()  # for torch's launcher, after detbuild's
    is_trial: bool = False  # the harness's worker
    context_dir: str = ""


def run(launch: Launch, environ: Mapping[str, str]) -> Failure | None:
    """Start all ranks and wait for them; return None if all succeeded."""
    if importlib.util.find_spec("torch") is None:
        return _no_torch(launch.size)
    adopt_orphans()
    directory = Path(tempfile.mkdtemp(prefix="detbuild-"))
    signals, inbox = Signals(), Inbox(directory)
    try:
        torch = subprocess.Popen(
            torch_command(launch),
            env=_environment(launch, directory, environ),
            start_new_session=True,  # a parent shell sends signals to its whole group
            preexec_fn=die_with_parent,  # noqa: PLW1509  (there is no other thread yet)
        )
        watch = _Watch(launch, directory, torch, _timeout(environ))
        return watch.until_ended(signals, inbox)
    finally:
        inbox.close()
        shutil.rmtree(directory, ignore_errors=True)


def torch_command(launch: Launch) -> list[str]:
    own = ["--standalone", "--nproc-per-node", str(launch.size), "--max-restarts", "0", "--no-python"]
    rank = [sys.executable, str(ENTRY), "rank", "RANK", *launch.command]
    return [sys.executable, "-c", _TORCH, *own, *launch.options, *rank]


def _environment(launch: Launch, directory: Path, environ: Mapping[str, str]) -> dict[str, str]:
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // launch.size))}
    own = {GROUP_DIR_VARIABLE: str(directory), "USE_TORCH_DISTRIBUTED": "True"}
    return {**threads, **environ, **own}


def _timeout(environ: Mapping[str, str]) -> float:
    try:
        return float(environ.get(TIMEOUT_VARIABLE, TIMEOUT))
    except ValueError:
        return TIMEOUT


def _no_torch(size: int) -> Failure:
    ended = Ended(
        ExitReason.NOT_RETRYABLE,
        message=f"torch is not installed, so its launcher cannot start {size} processes",
        hint="add torch to requirements.txt, or set resources.slots_per_trial to 1",
    )
    return Failure(ended, ExitCode.NOT_RETRYABLE)


class _Watch:
    def __init__(
        self, launch: Launch, directory: Path, torch: subprocess.Popen[bytes], timeout: float
    ) -> None:
        self._launch, self._torch = launch, torch
        self._ends = Ends(launch.size, launch.is_trial)
        self._began: dict[int, int] = {}
        self._watchdog = Watchdog(directory, launch.size, timeout, launch.context_dir)
        self._deadline: float | None = None
        self._stop_asked = False

    def until_ended(self, signals: Signals, inbox: Inbox) -> Failure | None:
        with selectors.DefaultSelector() as selector:
            selector.register(signals, selectors.EVENT_READ)
            selector.register(inbox, selectors.EVENT_READ)
            while self._torch.poll() is None:
                selector.select(_POLL)
                for number in signals.take():
                    self._forward(number)
                for report in inbox.take():
                    self._receive(report)
                self._judge()
        for report in inbox.take():
            self._receive(report)
        self._kill()
        failure = self._failure()
        if failure is not None:
            end_children(_KILLING)  # so that no process writes a record after the launcher's
        return failure

    def _receive(self, report: Report) -> None:
        if isinstance(report, RankStarted):
            self._began[report.rank] = report.pid
        elif isinstance(report, (EndReported, RankExited)):
            self._ends.add(report)

    def _forward(self, number: int) -> None:
        """Forward a signal to all ranks, but SIGTERM of a trial to rank 0 only, which tells the others."""
        self._stop_asked |= number == signal.SIGTERM
        for rank, pid in pids_of(self._began, self._ends).items():
            if rank == 0 or not (self._launch.is_trial and number == signal.SIGTERM):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)

    def _judge(self) -> None:
        now = time.monotonic()
        if self._deadline is None and self._ends.failed():
            self._deadline = now + _GRACE
        if self._deadline is not None:
            if now > self._deadline:
                self._kill()
            return
        self._ends.hung = self._watchdog.poll(pids_of(self._began, self._ends))
        if self._ends.hung is not None:
            self._deadline = now
            self._kill()

    def _kill(self) -> None:
        """Kill the remaining ranks, which wait for an ended one."""
        for rank, pid in pids_of(self._began, self._ends).items():
            self._ends.of.setdefault(rank, End()).killed = True
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    def _failure(self) -> Failure | None:
        failure, code = self._ends.failure(), self._torch.returncode
        if failure is None and code:
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            ended = Ended(
                ExitReason.ERROR,
                message=f"torch's launcher ended {how}",
                hint="see the last lines of its output",
            )
            return Failure(ended, code if code > 0 else 128 - code)
        if failure is not None and self._stop_asked and failure.code == 128 + signal.SIGTERM:
            return Failure(Ended(ExitReason.PREEMPTED), failure.code)
        return failure
