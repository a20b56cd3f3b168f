"""When a trial is run again after a run that did not complete, and how the trial ends when it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detbuild.launch.failure import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detbuild.store.journal import RunFinished

_FIRST_PAUSE = 1.0  # seconds
_LONGEST_PAUSE = 60.0
_FULL_DISK_PAUSE = (
    30.0,
    600.0,
)  # the controller looks for room meanwhile and goes on at once when there is some


def pause(finished: Sequence[RunFinished]) -> float:
    """Seconds to wait before the next run: none after a user's error, ever more if engine or disk fail."""
    failures = 0
    for run in reversed(finished):
        if run.counts:
            break
        failures += 1
    if not failures:
        return 0.0
    full = finished[-1].outcome == Outcome.DISK_FULL.value
    first, longest = _FULL_DISK_PAUSE if full else (_FIRST_PAUSE, _LONGEST_PAUSE)
    return float(min(longest, first * 2.0 ** min(failures - 1, 20)))


def ending(last: RunFinished | None, *, stop: str, max_restarts: int) -> tuple[str, str]:
    """The state of a trial that is not run again, and why."""
    outcome = Outcome(last.outcome) if last else None
    if outcome and outcome.succeeded and last:
        return "COMPLETED", last.message
    if stop or outcome in {Outcome.KILLED, Outcome.PREEMPTED}:
        return "CANCELED", "killed on request" if stop == "kill" else "cancelled on request"
    if last is None:
        return "ERROR", "it never ran"
    spent = f", after {max_restarts} restarts" if last.counts and max_restarts else ""
    return "ERROR", f"{last.message}{spent}"
