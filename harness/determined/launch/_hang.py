"""Detects that all ranks of a launch hang, and which rank the others wait for."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from determined._exit_codes import ExitCode
from determined._lockstep import PAGE_FILE, Page
from determined._records import Ended, ExitReason
from determined.launch import _stacks
from determined.launch._failure import Failure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TIMEOUT_VARIABLE = "DETBUILD_HANG_TIMEOUT"  # seconds; 0 never gives up
TIMEOUT = 300.0
_ASLEEP = 0.1  # of the timeout, for an idle rank that others wait for
_COMPUTES = 0.02  # of one processor; less counts as idle
_SLOW = 3  # times the longest harmless silence: a trial with slow batches gets more time
_WARM_UP = 5  # times longer before the first progress: kernels are compiled and caches filled
_SHOWN = 6  # frames
_TICK = os.sysconf("SC_CLK_TCK")


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
        stacks = _stacks.ask(self._directory, pids)
        given_up = quiet >= max(patience, self._longest * _SLOW)
        if not given_up and not _one_sleeps(stacks, processor_time(pids), silence.used or {}, quiet):
            return None
        return _failure(stacks, self._context_dir, quiet)

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
    waiting = {rank for rank, frames in stacks.items() if _stacks.waits(frames)}
    idle = {rank for rank in stacks if now.get(rank, 0.0) - before.get(rank, 0.0) < _COMPUTES * seconds}
    return bool(waiting) and bool(idle - waiting)


def _failure(stacks: Mapping[int, list[str]], context_dir: str, seconds: float) -> Failure:
    places = {rank: _stacks.place(frames, context_dir) for rank, frames in stacks.items()}
    culprits = [rank for rank, frames in stacks.items() if not _stacks.waits(frames)]
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
    lines = "\n".join(f"  {frame.strip()}" for frame in frames[:_SHOWN])
    return f"; its stack, innermost first:\n{lines}" if lines else ""


def _at(place: str) -> str:
    return f"at {place}" if place else "without an answer (stopped or blocked in the kernel)"
