"""Decides what follows the end of a run: another run, a report to the search, or the end of the trial.

A failure that is not the user's is retried after an exponential back-off. Waits follow a monotonic clock, and
end early once a full disk has free space again.
"""

from __future__ import annotations

import os
import select
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from detbuild.runtime.outcome import Outcome
from detbuild.search.method import TrialEnd
from detbuild.store.state import State, StopVerb
from determined._contract.checkpoints import FEW_INODES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from detbuild.store.journal import RunFinished
    from detbuild.store.state import TrialState

_FIRST_PAUSE: Final = 1.0  # seconds before another run
_LONGEST_PAUSE: Final = 60.0
# Seconds, at most: the controller polls free space and retries at once.
_FULL_DISK_PAUSE: Final = (30.0, 600.0)
_FIRST_BACKOFF: Final = 0.25  # seconds before another call to the engine or the disk
_LONGEST_BACKOFF: Final = 4.0
_LEAST_FREED: Final = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Launch:
    """Start another run."""

    after: RunFinished | None  # the failed run before it, if any


@dataclass(frozen=True, slots=True)
class ReportSegment:
    """The search waits for the result of the segment."""


@dataclass(frozen=True, slots=True)
class Wait:
    """The search has not decided yet."""


@dataclass(frozen=True, slots=True)
class End:
    state: State
    why: str = ""


def next_step(
    trial: TrialState, *, stop: StopVerb, needs_every_validation: bool, max_restarts: int
) -> Launch | ReportSegment | Wait | End:
    """Decide the next step of a trial.

    Args:
        trial: A trial without an open run that has not ended.
        stop: The stop verb: kill, cancel, search, or "".
        needs_every_validation: The search has already received the last validation of a segment.
        max_restarts: `max_restarts` of the config.
    """
    run = trial.runs[-1] if trial.runs else None
    last = run.finished if run else None
    outcome = Outcome(last.outcome) if last else None
    done = run is not None and outcome is Outcome.COMPLETED and run.segment == trial.segment
    reported = needs_every_validation or trial.released or trial.segments_reported >= trial.segment
    if done and reported and (needs_every_validation or trial.released or trial.closed):
        return End(State.COMPLETED, last.message if last else "")
    if outcome in {Outcome.STOPPED, Outcome.INVALID_HP} and last:
        return End(State.COMPLETED, last.message)
    if stop:
        return End(*_stopped(stop))
    if done:
        return Wait() if reported else ReportSegment()
    if run is None or last is None or outcome is Outcome.COMPLETED or run.run < trial.since:
        return _next_segment(trial)
    return Launch(last) if last.retry else End(*_failed(trial, last, max_restarts))


def _next_segment(trial: TrialState) -> Launch | Wait | End:
    if trial.segment > trial.segments_reported or trial.released:
        return Launch(None)
    return End(State.COMPLETED) if trial.closed else Wait()


def _stopped(stop: StopVerb) -> tuple[State, str]:
    if stop == StopVerb.SEARCH:
        return State.COMPLETED, "stopped by the search"
    return State.CANCELED, "killed on request" if stop == StopVerb.KILL else "cancelled on request"


def _failed(trial: TrialState, last: RunFinished, max_restarts: int) -> tuple[State, str]:
    if Outcome(last.outcome) in {Outcome.KILLED, Outcome.PREEMPTED}:
        return State.CANCELED, last.message
    spent = last.counts and 0 < max_restarts <= trial.restarts
    return State.ERROR, f"{last.message}, after {max_restarts} restarts" if spent else last.message


def end_of(trial: TrialState) -> TrialEnd:
    """Return why an ended trial has ended, for the search."""
    outcome = trial.last_run.outcome if trial.last_run else ""
    if trial.state == State.CANCELED:
        return TrialEnd.CANCELED
    if trial.state == State.ERROR:
        return TrialEnd.ERRORED
    if trial.stop == StopVerb.SEARCH:
        return TrialEnd.COMPLETED
    named = {Outcome.INVALID_HP.value: TrialEnd.INVALID_HP, Outcome.STOPPED.value: TrialEnd.STOPPED}
    return named.get(outcome, TrialEnd.COMPLETED)


def failures(trial: TrialState) -> tuple[RunFinished, ...]:
    """Return the latest consecutive failures of the trial's code with the same config, oldest first."""
    found: list[RunFinished] = []
    for run in reversed(trial.runs):
        last = run.finished
        if run.run < trial.since or (last is not None and Outcome(last.outcome).succeeded):
            break
        if last is not None and last.counts:
            found.append(last)
    return tuple(reversed(found))


def pause(finished: Sequence[RunFinished]) -> float:
    """Return the back-off in seconds before the next run: 0 after a user error, else exponential."""
    count = 0
    for run in reversed(finished):
        if run.counts or run.asked or Outcome(run.outcome).succeeded:
            break
        count += 1
    if not count:
        return 0.0
    full = finished[-1].outcome == Outcome.DISK_FULL.value
    first, longest = _FULL_DISK_PAUSE if full else (_FIRST_PAUSE, _LONGEST_PAUSE)
    return float(min(longest, first * 2.0 ** min(count - 1, 20)))


@dataclass(slots=True)
class Backoff:
    """Exponential back-off after infrastructure errors."""

    clock: Clock
    times: int = 0
    _until: float = 0.0

    @property
    def active(self) -> bool:
        return self.times > 0 and self.clock.now() < self._until

    def failed(self) -> None:
        self._until = self.clock.now() + min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2.0**self.times)
        self.times = min(self.times + 1, 10)

    def reset(self) -> None:
        self.times = 0


class Clock(Protocol):
    """A monotonic clock, replaceable in tests."""

    def now(self) -> float:
        """Return seconds since an arbitrary start."""

    def wait(self, seconds: float) -> None: ...


class SystemClock:
    def now(self) -> float:
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        select.select([], [], [], seconds)


class FreeSpace:
    """A check whether the space or inodes that a full disk lacked have been freed since."""

    def __init__(self, path: Path, *, needed: int) -> None:
        self._path = path
        self._needed = max(needed, _LEAST_FREED)
        self._bytes, self._inodes = self._free()

    def available(self) -> bool:
        free, inodes = self._free()
        if self._inodes < FEW_INODES:
            return inodes >= FEW_INODES
        return free - self._bytes >= self._needed

    def _free(self) -> tuple[int, int]:
        """Return free bytes and inodes; a disk without an inode limit always has enough."""
        try:
            found = os.statvfs(self._path)
        except OSError:
            return 0, FEW_INODES
        return found.f_bavail * found.f_frsize, found.f_favail if found.f_files else FEW_INODES
