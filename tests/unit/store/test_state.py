from __future__ import annotations

from detbuild.store.folder import Header
from detbuild.store.journal import (
    Entry,
    ExperimentFinished,
    Fact,
    RequestApplied,
    RunCreated,
    RunFinished,
    RunIntended,
    StorageBlocked,
    TrialCreated,
    TrialFinished,
    Waiting,
)
from detbuild.store.state import ExperimentState, RunState, TrialState, fold

HEADER = Header(id=1, name="n", context_name="c", created=0.0)
CREATED = TrialCreated(trial_id=1, seed=5, hparams={"lr": 1})
FAILED = RunFinished(trial_id=1, run=0, outcome="user_error", counts=True, retry=True, message="boom")


def after(*facts: Fact) -> ExperimentState:
    return fold(HEADER, [Entry(float(time), fact) for time, fact in enumerate(facts, start=1)])


def started(run: int = 0) -> tuple[Fact, Fact]:
    return RunIntended(trial_id=1, run=run), RunCreated(
        trial_id=1, run=run, container=f"id{run}", gpu_ids=("0",)
    )


def test_an_experiment_is_queued_until_a_run_was_created() -> None:
    assert after() == ExperimentState(header=HEADER)
    assert after(CREATED, RunIntended(trial_id=1, run=0)) == ExperimentState(
        header=HEADER,
        state="QUEUED",
        trials={
            1: TrialState(id=1, seed=5, hparams={"lr": 1}, segment=1, closed=True, runs=(RunState(run=0),))
        },
    )


def test_a_created_run_runs() -> None:
    run = RunState(run=0, created=True, container="id0", gpu_ids=("0",), started=3.0)
    trial = TrialState(id=1, state="RUNNING", seed=5, hparams={"lr": 1}, segment=1, closed=True, runs=(run,))
    assert after(CREATED, *started()) == ExperimentState(header=HEADER, state="RUNNING", trials={1: trial})
    assert trial.open_run == run


def test_a_failed_run_is_counted_and_the_trial_waits_for_the_next() -> None:
    state = after(CREATED, *started(), FAILED, Waiting(trial_id=1, why="no GPU is free"))
    trial = state.trials[1]
    assert (state.state, state.why) == ("QUEUED", "no GPU is free")
    assert (trial.restarts, trial.open_run, trial.last_run) == (1, None, FAILED)
    assert after(CREATED, *started(), FAILED, *started(1)).trials[1].why == ""


def test_failures_that_do_not_count_are_no_restarts() -> None:
    lost = RunFinished(trial_id=1, run=0, outcome="lost", retry=True)
    assert after(CREATED, *started(), lost, *started(1)).trials[1].restarts == 0


def test_an_intent_that_a_crash_cut_short_is_the_same_run_when_it_is_written_again() -> None:
    state = after(CREATED, RunIntended(trial_id=1, run=0), *started())
    assert [run.run for run in state.trials[1].runs] == [0]


def test_a_request_shows_until_the_end() -> None:
    kill, cancel = RequestApplied(number=1, verb="kill"), RequestApplied(number=2, verb="cancel")
    assert after(CREATED, *started(), cancel).state == "STOPPING_CANCELED"
    assert after(CREATED, kill, cancel).state == "STOPPING_KILLED"


def test_the_end_is_the_end() -> None:
    state = after(
        CREATED,
        *started(),
        FAILED,
        TrialFinished(trial_id=1, state="ERROR", why="boom"),
        ExperimentFinished(state="ERROR", why="boom"),
    )
    assert (state.state, state.why, state.ended, state.over) == ("ERROR", "boom", 6.0, True)
    assert state.trials[1].ended


def test_a_lost_journal_line_does_not_stop_the_reader() -> None:
    state = after(*started(), TrialFinished(trial_id=1, state="COMPLETED"))
    assert state.trials[1].state == "COMPLETED"


def test_trouble_with_the_storage_is_shown_until_it_is_over() -> None:
    waits = Waiting(trial_id=1, why="no free GPU")
    trouble, over = StorageBlocked(why="cannot upload"), StorageBlocked(why="")
    assert after(CREATED, waits, trouble).why == "no free GPU; cannot upload"
    assert after(CREATED, trouble, waits, over).why == "no free GPU"
    ended = ExperimentFinished(state="ERROR", why="boom")
    assert after(CREATED, trouble, ended).why == "boom; cannot upload"
    assert after(CREATED, trouble, ended, over).why == "boom"
    assert after(CREATED, ended, trouble, over).why == "boom"
