"""One process of a launch with several: how it joins the run, and how it reports to its launcher.

Reports are small datagrams over a socket in the launcher's directory. The launcher requests stacks by a
signal; the fault handler writes them to files there, even if Python is blocked.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import re
import signal
import socket
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from determined._contract.records import Ended, ExitReason, Stage
from determined._run.processes import GROUP_DIR_VARIABLE, Alone, GroupError, environment_group

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from determined._run.outcome import Outcome
    from determined._run.processes import Group
    from determined._run.run import ChiefRun

# Errors of torch and its back-ends when another process has ended first.
_CONSEQUENCES = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "ncclRemoteError")
_GOOD = {ExitReason.COMPLETED, ExitReason.PREEMPTED, ExitReason.STOPPED}
_SOCKET = "reports"
_LARGEST = 1 << 18  # bytes: of 20 lines of 500 characters, each 12 bytes in JSON, and more
ASK = signal.SIGRTMIN + 7  # not used by any known library
_ANSWER = 1.0  # seconds
_FRAME = re.compile(r'^  File "(?P<file>.*)", line (?P<line>\d+) in (?P<name>.*)$')
_MAIN = re.compile(r"^(?:Current thread|Thread) .*\(most recent call first\):$")
# Code in which a rank waits for the others: torch's collectives and backward passes, and our own group.
_WAITING = (
    "/torch/distributed/",
    "/torch/autograd/graph.py",
    "/torch/nn/parallel/",
    "/determined/_run/processes.py",
    "/determined/_run/lockstep.py",
    "/determined/pytorch/_metrics.py",  # means over a window, which the GPU has to finish
)
_kept: list[object] = []


def launch_directory() -> Path | None:
    """Return the directory of detbuild's launcher; None if it did not start this process."""
    directory = os.environ.get(GROUP_DIR_VARIABLE)
    return Path(directory) if directory else None


def launched_group() -> Group:
    """Return the processes of detbuild's launcher, or this one alone without a launcher.

    Raises:
        GroupError: one of them did not start.
    """
    if launch_directory() is None:
        return Alone()
    group = environment_group()
    prepare_rank(group.rank)
    return group


def prepare_rank(rank: int) -> None:
    """Dump stacks on request, and log warnings only, except on rank 0."""
    answer(os.environ, rank)
    if rank:
        logging.getLogger("determined").setLevel(logging.WARNING)


def report_end(run: ChiefRun | None, outcome: Outcome, *, rank: int = 0) -> None:
    """Report the end of this process.

    In a launch, the launcher records failures: only it knows which one was the first.
    """
    launched = launch_directory() is not None
    if run is not None and not (launched and outcome.ended.reason not in _GOOD):
        run.end(outcome.ended)
    elif run is not None:
        run.close()
    if launched:
        consequence = is_consequence(outcome.error)
        report = EndReported(
            rank=rank, ended=outcome.ended, code=int(outcome.exit_code), consequence=consequence
        )
        send_report(os.environ, report)


def is_consequence(error: BaseException | None) -> bool:
    """Whether an error only shows that another process of the launch has ended."""
    if error is None or launch_directory() is None:
        return False
    return isinstance(error, GroupError) or any(words in str(error) for words in _CONSEQUENCES)


@contextmanager
def on_sigterm(ask: Callable[[], object]) -> Iterator[None]:
    """Call `ask` on SIGTERM. Only a main thread can set handlers; other threads do nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, lambda _number, _frame: ask())
    try:
        yield
    finally:
        with suppress(TypeError):  # a handler that Python did not install cannot be restored
            signal.signal(signal.SIGTERM, previous)


@dataclass(frozen=True, slots=True)
class RankStarted:
    """A rank's program has started."""

    rank: int
    pid: int


@dataclass(frozen=True, kw_only=True, slots=True)
class EndReported:
    """A trial's process reports how it ends."""

    rank: int
    ended: Ended
    code: int
    consequence: bool  # caused by the end of another process


@dataclass(frozen=True, kw_only=True, slots=True)
class RankExited:
    """A rank's program has ended."""

    rank: int
    code: int  # negative: minus the signal that ended it
    tail: tuple[str, ...]  # the last lines of its output


Report: TypeAlias = RankStarted | EndReported | RankExited


class Inbox:
    """The launcher's end of the socket."""

    def __init__(self, directory: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(directory / _SOCKET))
        self._socket.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def take(self) -> list[Report]:
        """Return the reports since the last call."""
        reports: list[Report] = []
        with suppress(BlockingIOError):
            while True:
                reports.append(_decoded(self._socket.recv(_LARGEST)))
        return reports

    def close(self) -> None:
        self._socket.close()


def send_report(environ: Mapping[str, str], report: Report) -> None:
    """Send a report to the launcher in the environment, if it is still running."""
    directory = environ.get(GROUP_DIR_VARIABLE)
    if not directory:
        return
    data = json.dumps({"kind": type(report).__name__, **asdict(report)}).encode()
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
        own.sendto(data, str(Path(directory, _SOCKET)))


def _decoded(data: bytes) -> Report:
    raw = json.loads(data)
    kind = raw.pop("kind")
    if kind == "RankStarted":
        return RankStarted(**raw)
    if kind == "RankExited":
        return RankExited(**{**raw, "tail": tuple(raw["tail"])})
    ended = raw.pop("ended")
    stage = Stage(ended["stage"]) if ended["stage"] else None
    return EndReported(ended=Ended(**{**ended, "reason": ExitReason(ended["reason"]), "stage": stage}), **raw)


def answer(environ: Mapping[str, str], rank: int) -> None:
    """Dump this process's stacks whenever the signal arrives."""
    directory = environ.get(GROUP_DIR_VARIABLE)
    if directory:
        file = _file(Path(directory), rank).open("w", encoding="utf-8")  # stays open until the process ends
        faulthandler.register(ASK, file=file, all_threads=True)
        _kept.append(file)


def ask(directory: Path, pids: Mapping[int, int]) -> dict[int, list[str]]:
    """Return the frames of each rank's main thread, innermost first; none for a stopped one."""
    for rank, pid in pids.items():
        if _file(directory, rank).exists():  # the signal would kill a program without a handler
            with suppress(ProcessLookupError):
                os.kill(pid, ASK)
    time.sleep(_ANSWER)
    return {rank: _frames(_file(directory, rank)) for rank in pids}


def place(frames: list[str], context_dir: str) -> str:
    """Return the innermost frame, of the user's code if any, e.g. `model_def.py:12 in train_batch`."""
    parsed = [match for frame in frames if (match := _FRAME.match(frame))]
    own = [m for m in parsed if context_dir and m["file"].startswith(f"{context_dir}/")]
    for match in own or parsed:
        file = match["file"].removeprefix(f"{context_dir}/")
        return f"{file}:{match['line']} in {match['name']}"
    return ""


def waits(frames: list[str]) -> bool:
    """Whether a rank is waiting for others."""
    match = _FRAME.match(frames[0]) if frames else None
    return match is not None and any(part in match["file"] for part in _WAITING)


def _file(directory: Path, rank: int) -> Path:
    return directory / f"stack-{rank}"


def _frames(file: Path) -> list[str]:
    """Return the frames of the main thread, which the fault handler writes last."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    heads = [number for number, line in enumerate(lines) if _MAIN.match(line)]
    if not heads:
        return []
    return [line for line in lines[heads[-1] + 1 :] if line.startswith("  File ")]
