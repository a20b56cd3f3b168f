"""The next step of a trial between two runs: another run, a report to the search, or its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from detbuild.runtime.outcome import Outcome
from detbuild.search.method import TrialEnd
from detbuild.store.state import State, StopVerb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detbuild.store.journal import RunFinished
    from detbuild.store.state import TrialState

_FIRST_PAUSE = 1.0  # seconds
_LONGEST_PAUSE = 60.0
_FULL_DISK_PAUSE = (
    30.0,
    600.0,
)  # at most: the controller polls free space and retries at once
_STOPPED_BY_SEARCH = "stopped by the search"


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
    told = needs_every_validation or trial.released or trial.segments_reported >= trial.segment
    if done and told and (needs_every_validation or trial.released or trial.closed):
        return End(State.COMPLETED, last.message if last else "")
    if outcome in {Outcome.STOPPED, Outcome.INVALID_HP} and last:
        return End(State.COMPLETED, last.message)
    if stop:
        return End(*_stopped(stop))
    if done:
        return Wait() if told else ReportSegment()
    if run is None or last is None or outcome is Outcome.COMPLETED or run.run < trial.since:
        asked = trial.segment > trial.segments_reported or trial.released
        return Launch(None) if asked else _unasked(trial)
    return Launch(last) if last.retry else End(*_failed(trial, last, max_restarts))


def _unasked(trial: TrialState) -> Wait | End:
    return End(State.COMPLETED) if trial.closed else Wait()


def _stopped(stop: StopVerb) -> tuple[State, str]:
    if stop == StopVerb.SEARCH:
        return State.COMPLETED, _STOPPED_BY_SEARCH
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
    failures = 0
    for run in reversed(finished):
        if run.counts or run.asked or Outcome(run.outcome).succeeded:
            break
        failures += 1
    if not failures:
        return 0.0
    full = finished[-1].outcome == Outcome.DISK_FULL.value
    first, longest = _FULL_DISK_PAUSE if full else (_FIRST_PAUSE, _LONGEST_PAUSE)
    return float(min(longest, first * 2.0 ** min(failures - 1, 20)))
