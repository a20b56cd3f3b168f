from __future__ import annotations

import pytest

from detbuild.launch.failure import Outcome
from detbuild.launch.restart import ending, pause
from detbuild.store.journal import RunFinished


def ended(outcome: Outcome, message: str = "boom") -> RunFinished:
    return RunFinished(trial_id=1, run=0, outcome=outcome.value, counts=outcome.counts, message=message)


USER, AWAY, FULL = ended(Outcome.USER_ERROR), ended(Outcome.INFRASTRUCTURE), ended(Outcome.DISK_FULL)


@pytest.mark.parametrize(
    ("runs", "seconds"),
    [
        ([], 0),
        ([USER], 0),
        ([AWAY], 1),
        ([AWAY] * 4, 8),
        ([AWAY] * 100, 60),
        ([AWAY, AWAY, USER], 0),
        ([USER, AWAY, AWAY], 2),
        ([FULL], 30),
        ([FULL] * 100, 600),
    ],
)
def test_the_pause_grows_while_nobody_is_at_fault(runs: list[RunFinished], seconds: float) -> None:
    assert pause(runs) == seconds


@pytest.mark.parametrize(
    ("last", "stop", "state", "why"),
    [
        (ended(Outcome.COMPLETED, ""), "", "COMPLETED", ""),
        (ended(Outcome.INVALID_HP, "lr is 0"), "", "COMPLETED", "lr is 0"),
        (ended(Outcome.COMPLETED, ""), "cancel", "COMPLETED", ""),
        (ended(Outcome.PREEMPTED), "cancel", "CANCELED", "cancelled on request"),
        (ended(Outcome.KILLED), "kill", "CANCELED", "killed on request"),
        (ended(Outcome.USER_ERROR), "kill", "CANCELED", "killed on request"),
        (None, "cancel", "CANCELED", "cancelled on request"),
        (ended(Outcome.USER_ERROR), "", "ERROR", "boom, after 5 restarts"),
        (ended(Outcome.HOPELESS), "", "ERROR", "boom"),
    ],
)
def test_how_a_trial_ends(last: RunFinished | None, stop: str, state: str, why: str) -> None:
    assert ending(last, stop=stop, max_restarts=5) == (state, why)
