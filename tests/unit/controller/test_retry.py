"""What follows the end of a run, and after which pause.

The wall clock may jump: waits follow another clock, and order follows the journal.
"""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import cycle
from typing import TYPE_CHECKING

import pytest

from detbuild.controller.retry import (
    End,
    Launch,
    ReportSegment,
    SystemClock,
    Wait,
    end_of,
    next_step,
    pause,
)
from detbuild.runtime.outcome import Outcome
from detbuild.search.method import TrialEnd
from detbuild.store.journal import RunFinished
from detbuild.store.state import RunState, TrialState
from tests.faults.searching import Halving, made
from tests.faults.training import expected, rig

if TYPE_CHECKING:
    from pathlib import Path

HOUR = 3600.0


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
def test_the_pause_grows_while_the_code_is_not_at_fault(runs: list[RunFinished], seconds: float) -> None:
    assert pause(runs) == seconds


def trial(*runs: RunFinished, segment: int = 1, reported: int = 0, **changes: object) -> TrialState:
    """One whose runs were all for its first segment."""
    states = tuple(RunState(run=number, finished=replace(run, run=number)) for number, run in enumerate(runs))
    base = TrialState(id=1, segment=segment, segments_reported=reported, closed=True, runs=states)
    return replace(base, **changes)


def after(state: TrialState, *, stop: str = "", needs_every_validation: bool = False) -> object:
    return next_step(state, stop=stop, needs_every_validation=needs_every_validation, max_restarts=5)


DONE = ended(Outcome.COMPLETED, "")
RETRIED = replace(ended(Outcome.USER_ERROR), retry=True)


@pytest.mark.parametrize(
    ("state", "stop", "name", "why"),
    [
        (trial(DONE, reported=1), "", "COMPLETED", ""),
        (trial(DONE, reported=1), "cancel", "COMPLETED", ""),
        (trial(DONE, released=True, reported=1), "", "COMPLETED", ""),
        (trial(ended(Outcome.INVALID_HP, "lr is 0")), "", "COMPLETED", "lr is 0"),
        (trial(ended(Outcome.STOPPED, "enough")), "", "COMPLETED", "enough"),
        (trial(ended(Outcome.PREEMPTED)), "cancel", "CANCELED", "cancelled on request"),
        (trial(ended(Outcome.KILLED)), "kill", "CANCELED", "killed on request"),
        (trial(ended(Outcome.USER_ERROR)), "kill", "CANCELED", "killed on request"),
        (trial(), "cancel", "CANCELED", "cancelled on request"),
        (trial(ended(Outcome.PREEMPTED)), "search", "COMPLETED", "stopped by the search"),
        (trial(), "search", "COMPLETED", "stopped by the search"),
        (trial(*[RETRIED] * 5, ended(Outcome.USER_ERROR)), "", "ERROR", "boom, after 5 restarts"),
        (trial(ended(Outcome.USER_ERROR)), "", "ERROR", "boom"),
        (trial(ended(Outcome.NOT_RETRYABLE)), "", "ERROR", "boom"),
        (trial(segment=0), "", "COMPLETED", ""),
    ],
)
def test_how_a_trial_ends(state: TrialState, stop: str, name: str, why: str) -> None:
    assert after(state, stop=stop) == End(name, why)


def test_a_trial_is_run_again_after_a_failure_that_may_be_retried() -> None:
    assert after(trial(RETRIED)) == Launch(replace(RETRIED, run=0))


def test_a_segment_is_reported_to_the_search_before_the_trial_ends() -> None:
    assert after(trial(DONE)) == ReportSegment()


def test_a_search_that_gets_every_validation_needs_no_report_of_a_segment() -> None:
    assert after(trial(DONE), needs_every_validation=True) == End("COMPLETED")


def test_after_its_segment_a_trial_waits_for_the_search() -> None:
    assert after(trial(DONE, reported=1, closed=False)) == Wait()
    assert after(trial(segment=0, closed=False)) == Wait()


def test_a_longer_segment_follows_at_once_and_without_a_failure() -> None:
    assert after(trial(DONE, segment=2, reported=1, closed=False)) == Launch(None)


def test_a_failure_before_the_experiment_was_continued_does_not_count() -> None:
    assert after(trial(ended(Outcome.USER_ERROR), since=1)) == Launch(None)


@pytest.mark.parametrize(
    ("state", "end"),
    [
        (trial(DONE, state="COMPLETED"), TrialEnd.COMPLETED),
        (trial(ended(Outcome.PREEMPTED), state="COMPLETED", stop="search"), TrialEnd.COMPLETED),
        (trial(ended(Outcome.INVALID_HP), state="COMPLETED"), TrialEnd.INVALID_HP),
        (trial(ended(Outcome.STOPPED), state="COMPLETED"), TrialEnd.STOPPED),
        (trial(ended(Outcome.USER_ERROR), state="ERROR"), TrialEnd.ERRORED),
        (trial(state="CANCELED"), TrialEnd.CANCELED),
    ],
)
def test_the_search_receives_why_a_trial_ended(state: TrialState, end: TrialEnd) -> None:
    assert end_of(state) is end


def test_an_end_that_was_asked_for_needs_no_pause() -> None:
    asked = replace(ended(Outcome.PREEMPTED), asked="pause", retry=True)
    assert pause([AWAY, AWAY, asked]) == 0
    assert pause([AWAY, DONE]) == 0


@pytest.mark.parametrize("jumps", [(-HOUR,), (24 * HOUR,), (24 * HOUR, -HOUR, 0.0)])
def test_a_clock_that_jumps_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jumps: tuple[float, ...]
) -> None:
    true, offset = time.time, cycle((0.0, *jumps))
    monkeypatch.setattr(time, "time", lambda: true() + next(offset))
    tried = rig(tmp_path, method=lambda _: Halving())
    assert tried.run().state == "COMPLETED"
    for trial in tried.state().trials.values():
        length = trial.progress.steps_completed
        assert (trial.state, trial.restarts, len(trial.runs)) == ("COMPLETED", 0, length // 2)
        assert tried.reports(trial.id) == expected(length, float(str(made(trial.id).hparams["start"])))


def test_the_clock_of_the_controller_does_not_follow_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    before = clock.now()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    clock.wait(0.01)
    assert 0.01 <= clock.now() - before < HOUR
