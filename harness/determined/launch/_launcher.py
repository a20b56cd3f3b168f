"""Starts the processes of one launch by torch's elastic launcher, and waits for their end.

The process tree: this launcher, torch's launcher, one `wrap_rank` per rank, and its program. Signals are sent
directly to the programs, since torch's launcher would kill them after 30 seconds. The cause of a failure is
found in the reports of the ranks. When all ranks hang, the one that the others wait for is named.
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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from determined._contract.records import Ended, ExitReason
from determined._contract.run_info import ENTRY, ExitCode
from determined._run import launched
from determined._run.exit import adopt_orphans, die_with_parent, end_children
from determined._run.launched import EndReported, Inbox, RankExited, RankStarted, Report
from determined._run.lockstep import PAGE_FILE, Page
from determined._run.processes import GROUP_DIR_VARIABLE
from determined.exec._process import Signals

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

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
_SHOWN = 10  # lines of output in a message
_GOOD = {ExitReason.COMPLETED, ExitReason.PREEMPTED, ExitReason.STOPPED}
TIMEOUT_VARIABLE = "DETBUILD_HANG_TIMEOUT"  # seconds; 0 never gives up
TIMEOUT = 300.0
_ASLEEP = 0.1  # of the timeout, for an idle rank that others wait for
_COMPUTES = 0.02  # of one processor; less counts as idle
_SLOW = 3  # times the longest harmless silence: a trial with slow batches gets more time
_WARM_UP = 5  # times longer before the first progress: kernels are compiled and caches filled
_SHOWN_FRAMES = 6  # frames
_TICK = os.sysconf("SC_CLK_TCK")


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


@dataclass(slots=True)
class End:
    """How one rank ended, as far as known."""

    reported: EndReported | None = None
    exited: RankExited | None = None
    killed: bool = False  # by the launcher, because another rank failed

    def bad(self, *, is_trial: bool) -> bool:
        """Whether it failed, so that the others would wait forever."""
        if self.reported is not None:
            return self.reported.ended.reason not in _GOOD
        return self.exited is not None and (self.exited.code != 0 or is_trial)


@dataclass(frozen=True, slots=True)
class Failure:
    """The result of a launch that did not succeed; includes INVALID_HP, with which the run has not failed."""

    ended: Ended
    code: int
    reported: bool = False  # on stderr, by the rank itself


@dataclass(slots=True)
class Ends:
    """The ends of all ranks, in the order of their reports."""

    size: int
    is_trial: bool  # the harness's worker, which always reports how it ended
    of: dict[int, End] = field(default_factory=dict)
    hung: Failure | None = None

    def add(self, report: EndReported | RankExited) -> None:
        end = self.of.setdefault(report.rank, End())
        if isinstance(report, EndReported):
            end.reported = report
        else:
            end.exited = report

    def failed(self) -> bool:
        return self.hung is not None or any(end.bad(is_trial=self.is_trial) for end in self.of.values())

    def failure(self) -> Failure | None:
        """Return the cause; ends that are consequences of another one come last."""
        if self.hung is not None:
            return self.hung
        bad = [
            (rank, end) for rank, end in self.of.items() if end.bad(is_trial=self.is_trial) and not end.killed
        ]
        if not bad:
            return None
        rank, end = min(bad, key=lambda each: bool(each[1].reported and each[1].reported.consequence))
        alike = len(bad) == self.size and len({_words(each) for _, each in bad}) == 1
        return _failure(end, "" if alike or self.size == 1 else f"rank {rank} of {self.size}: ")


def _words(end: End) -> str:
    return end.reported.ended.message if end.reported else repr(end.exited)


def _failure(end: End, whose: str) -> Failure:
    if end.reported is not None:
        ended = replace(end.reported.ended, message=whose + end.reported.ended.message)
        return Failure(ended, end.reported.code, reported=True)
    assert end.exited is not None
    code, tail = end.exited.code, end.exited.tail
    message = f"{whose or 'the process '}{how(code)}{shown(tail)}"
    ended = Ended(ExitReason.ERROR, message=message, hint=_hint(code))
    return Failure(ended, 128 - code if code < 0 else code or ExitCode.USER_ERROR)


def how(code: int) -> str:
    """Describe an exit code."""
    if code < 0:
        return f"was killed by {_name(-code)}"
    return f"ended with exit code {code}" + ("" if code else " before the trial was done")


def shown(tail: Sequence[str]) -> str:
    """Format the last lines of a rank's output, to append to a message."""
    lines = [line for line in tail if line.strip()][-_SHOWN:]
    return "; its last output:\n" + "\n".join(f"  {line}" for line in lines) if lines else ""


def _hint(code: int) -> str:
    if code == -signal.SIGKILL:
        return "lower the batch size or use fewer loader workers, if the kernel ran out of memory"
    if code == 0:
        return "do not call os._exit: return from the trial's methods, or raise"
    return "see the output of that rank"


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def pids_of(began: Mapping[int, int], ends: Ends) -> dict[int, int]:
    """Return the PIDs of the programs that are still running."""
    return {rank: pid for rank, pid in began.items() if rank not in ends.of or ends.of[rank].exited is None}


@dataclass(frozen=True, slots=True)
class Silence:
    """A period without progress of any rank, and the processor time of each rank at its start."""

    pulse: tuple[int, ...] = ()
    since: float = 0.0
    used: Mapping[int, float] | None = None
    asked: float = 0.0  # when stacks were last requested


class Watchdog:
    """Watches the page that the ranks share, from the launcher.

    Only while they train or validate batch by batch: the time of a checkpoint or of loading data is unknown.

    Args:
        directory: of the launch.
        size: number of ranks.
        timeout: seconds of silence; a tenth of it if one rank is idle and another waits for it.
        context_dir: of the user's code.
    """

    def __init__(self, directory: Path, size: int, timeout: float, context_dir: str) -> None:
        self._directory, self._size, self._timeout = directory, size, timeout
        self._context_dir = context_dir
        self._page: Page | None = None
        self._silence = Silence()
        self._longest = 0.0

    def poll(self, pids: Mapping[int, int]) -> Failure | None:
        """Return a failure if a rank hangs. `pids` are those of the ranks' programs."""
        page = self._opened()
        if page is None or not self._timeout:
            return None
        pulse, now = page.pulse(), time.monotonic()
        if pulse != self._silence.pulse or not page.watched():
            if self._silence.pulse and page.watched() and page.warm():
                self._longest = max(self._longest, now - self._silence.since)
            self._silence = Silence(pulse, now)
            return None
        if self._silence.used is None:
            self._silence = Silence(pulse, self._silence.since, processor_time(pids), now)
        return self._diagnose(page, pids, now)

    def _diagnose(self, page: Page, pids: Mapping[int, int], now: float) -> Failure | None:
        silence = self._silence
        patience = self._timeout if page.warm() else self._timeout * _WARM_UP
        quiet, first = now - silence.since, max(patience * _ASLEEP, self._longest * _SLOW)
        if quiet < first or now - silence.asked < first:
            return None
        self._silence = Silence(silence.pulse, silence.since, silence.used, now)
        stacks = launched.ask(self._directory, pids)
        given_up = quiet >= max(patience, self._longest * _SLOW)
        if not given_up and not _one_sleeps(stacks, processor_time(pids), silence.used or {}, quiet):
            return None
        return _hang_failure(stacks, self._context_dir, quiet)

    def _opened(self) -> Page | None:
        path = self._directory / PAGE_FILE
        if self._page is None and path.exists() and path.stat().st_size:
            self._page = Page(path, self._size)
        return self._page


def processor_time(pids: Mapping[int, int]) -> dict[int, float]:
    """Return the processor time of each rank in seconds; each program leads a process group."""
    ranks = {pid: rank for rank, pid in pids.items()}
    used = dict.fromkeys(pids, 0.0)
    for group, seconds in _processes():
        if group in ranks:
            used[ranks[group]] += seconds
    return used


def _processes() -> Iterator[tuple[int, float]]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # the name, in parentheses, may hold anything; state, parent and group follow it
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            yield int(fields[2]), (int(fields[11]) + int(fields[12])) / _TICK


def _one_sleeps(
    stacks: Mapping[int, list[str]], now: Mapping[int, float], before: Mapping[int, float], seconds: float
) -> bool:
    """Whether a rank that others wait for is idle.

    If no rank waits for another, all may wait for a disk or the network, which is not a hang.
    """
    waiting = {rank for rank, frames in stacks.items() if launched.waits(frames)}
    idle = {rank for rank in stacks if now.get(rank, 0.0) - before.get(rank, 0.0) < _COMPUTES * seconds}
    return bool(waiting) and bool(idle - waiting)


def _hang_failure(stacks: Mapping[int, list[str]], context_dir: str, seconds: float) -> Failure:
    places = {rank: launched.place(frames, context_dir) for rank, frames in stacks.items()}
    culprits = [rank for rank, frames in stacks.items() if not launched.waits(frames)]
    if len(culprits) == 1:
        (rank,) = culprits
        where = f"{_at(places[rank])} for {seconds:.0f} seconds"
        message = f"rank {rank} of {len(stacks)} hangs {where} while the others wait{_stack(stacks[rank])}"
    else:
        listing = "".join(f"\n  rank {rank}: {_at(place)}" for rank, place in sorted(places.items()))
        message = f"the {len(stacks)} processes made no progress for {seconds:.0f} seconds:{listing}"
    hint = f"do the same in each batch on all ranks; set {TIMEOUT_VARIABLE} (seconds) if batches take longer"
    return Failure(Ended(ExitReason.ERROR, None, message, hint), ExitCode.USER_ERROR)


def _stack(frames: list[str]) -> str:
    lines = "\n".join(f"  {frame.strip()}" for frame in frames[:_SHOWN_FRAMES])
    return f"; its stack, innermost first:\n{lines}" if lines else ""


def _at(place: str) -> str:
    return f"at {place}" if place else "without an answer (stopped or blocked in the kernel)"
