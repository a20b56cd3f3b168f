"""Notices that no rank of a launch does anything any more, and finds out which one the others wait for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from determined._exit_codes import ExitCode
from determined._lockstep import PAGE_FILE, Page
from determined._records import Ended, ExitReason
from determined.launch import _stacks
from determined.launch._failure import Failure

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TIMEOUT_VARIABLE = "DETBUILD_HANG_TIMEOUT"  # seconds; 0 never gives up
TIMEOUT = 120.0
_SLOW = 10  # times the longest silence that was none: a trial with slow batches gets more time
_SHOWN = 6  # frames
_WARM_UP = 5  # times longer before anything was done: kernels are compiled and caches filled


class Watchdog:
    """Looks at the page that the ranks share, from outside of them.

    Only while they train or validate batch by batch: nobody knows how long a checkpoint takes, or a data set.
    """

    def __init__(self, directory: Path, size: int, timeout: float) -> None:
        self._directory, self._size, self._timeout = directory, size, timeout
        self._page: Page | None = None
        self._pulse: tuple[int, ...] = ()
        self._since = time.monotonic()
        self._longest = 0.0

    def silent(self) -> float:
        """For how many seconds nobody has done anything; 0 where that is nothing to worry about."""
        page = self._opened()
        if page is None or not self._timeout:
            return 0.0
        pulse, now = page.pulse(), time.monotonic()
        if pulse != self._pulse or not page.watched():
            if self._pulse and page.watched() and page.warm():
                self._longest = max(self._longest, now - self._since)
            self._pulse, self._since = pulse, now
            return 0.0
        silence = now - self._since
        limit = self._timeout if page.warm() else self._timeout * _WARM_UP
        return silence if silence > max(limit, self._longest * _SLOW) else 0.0

    def _opened(self) -> Page | None:
        path = self._directory / PAGE_FILE
        if self._page is None and path.exists() and path.stat().st_size:
            self._page = Page(path, self._size)
        return self._page


def hung(directory: Path, pids: Mapping[int, int], context_dir: str, silence: float) -> Failure:
    """Say which rank hangs, and where.

    Args:
        directory: of the launch.
        pids: the ranks' programs.
        context_dir: of the user's code.
        silence: seconds.
    """
    stacks = _stacks.ask(directory, pids)
    places = {rank: _stacks.place(frames, context_dir) or "no answer" for rank, frames in stacks.items()}
    culprits = [rank for rank, frames in stacks.items() if not _stacks.waits(frames)]
    if len(culprits) == 1:
        (rank,) = culprits
        where = f"{_at(places[rank])} for {silence:.0f} seconds"
        message = f"rank {rank} of {len(pids)} hangs: {where}, and the others wait"
    else:
        listing = "".join(f"\n  rank {rank}: {_at(where)}" for rank, where in sorted(places.items()))
        message = f"the {len(pids)} processes hang for {silence:.0f} seconds:{listing}"
    frames = next((stacks[rank] for rank in culprits), [])
    ended = Ended(
        ExitReason.ERROR,
        None,
        message + _stack(frames),
        f"let all ranks do the same in each batch; set {TIMEOUT_VARIABLE} (seconds) if batches take longer",
    )
    return Failure(ended, ExitCode.USER_ERROR)


def _stack(frames: list[str]) -> str:
    lines = "\n".join(f"  {frame.strip()}" for frame in frames[:_SHOWN])
    return f"; its stack, innermost first:\n{lines}" if lines else ""


def _at(place: str) -> str:
    return "it does not answer, stopped or stuck in the kernel," if place == "no answer" else f"at {place}"
