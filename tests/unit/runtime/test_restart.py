from __future__ import annotations

from dataclasses import replace

import pytest

from detbuild.runtime.outcome import Outcome
from detbuild.runtime.restart import End, Launch, ReportSegment, Wait, end_of, next_step, pause
from detbuild.search.method import TrialEnd
from detbuild.store.journal import RunFinished
from detbuild.store.state import RunState, TrialState


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


def trial(*runs: RunFinished, segment: int = 1, told: int = 0, **changes: object) -> TrialState:
    """One whose runs were all for its first segment."""
    states = tuple(RunState(run=number, finished=replace(run, run=number)) for number, run in enumerate(runs))
    base = TrialState(id=1, segment=segment, segments_reported=told, closed=True, runs=states)
    return replace(base, **changes)


def after(state: TrialState, *, stop: str = "", needs_every_validation: bool = False) -> object:
    return next_step(state, stop=stop, needs_every_validation=needs_every_validation, max_restarts=5)


DONE = ended(Outcome.COMPLETED, "")
RETRIED = replace(ended(Outcome.USER_ERROR), retry=True)


@pytest.mark.parametrize(
    ("state", "stop", "name", "why"),
    [
        (trial(DONE, told=1), "", "COMPLETED", ""),
        (trial(DONE, told=1), "cancel", "COMPLETED", ""),
        (trial(DONE, released=True, told=1), "", "COMPLETED", ""),
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


def test_a_leg_is_told_to_the_search_before_the_trial_ends() -> None:
    assert after(trial(DONE)) == ReportSegment()


def test_a_watching_search_needs_no_word_at_the_end_of_a_segment() -> None:
    assert after(trial(DONE), needs_every_validation=True) == End("COMPLETED")


def test_after_its_leg_a_trial_waits_for_the_search() -> None:
    assert after(trial(DONE, told=1, closed=False)) == Wait()
    assert after(trial(segment=0, closed=False)) == Wait()


def test_a_longer_leg_follows_at_once_and_without_a_failure() -> None:
    assert after(trial(DONE, segment=2, told=1, closed=False)) == Launch(None)


def test_what_failed_before_a_person_let_it_pass_is_no_failure() -> None:
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
def test_the_search_hears_why_a_trial_ended(state: TrialState, end: TrialEnd) -> None:
    assert end_of(state) is end


def test_an_end_that_was_asked_for_needs_no_pause() -> None:
    asked = replace(ended(Outcome.PREEMPTED), asked="pause", retry=True)
    assert pause([AWAY, AWAY, asked]) == 0
    assert pause([AWAY, DONE]) == 0
