from __future__ import annotations

import math

import pytest

from detbuild.store import journal
from detbuild.store.experiment_dir import Goal, Header
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
from detbuild.store.records import RunRecords
from detbuild.store.state import (
    CheckpointState,
    ExperimentState,
    Progress,
    RunState,
    Stored,
    TrialState,
    fold,
    trial_progress,
)
from determined._contract.records import Checkpoint, CheckpointRejected, Restored, Training, Validation

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


UPLOADED = journal.CheckpointUploaded(uuid="a")
INTENDED = journal.UploadIntended(uuid="a")
REFUSED = journal.UploadRejected(uuid="a", why="damaged")
DELETED = journal.CheckpointsDeleted(uuids=("a", "b"))
REMOVED = journal.CheckpointsRemoved(uuids=("a", "b"))
PARTLY = journal.FilesDeleted(uuid="a", paths=("optimizer",))
PARTED = journal.FilesRemoved(uuid="a")


@pytest.mark.parametrize(
    ("facts", "damaged", "state"),
    [
        ((), False, "COMPLETED"),
        ((), True, "ERROR"),
        ((UPLOADED,), True, "COMPLETED"),  # what is damaged is the copy
        ((REFUSED,), False, "ERROR"),
        ((UPLOADED, PARTLY), False, "PARTIALLY_DELETED"),
        ((UPLOADED, PARTLY, DELETED), False, "DELETED"),
        ((DELETED, REMOVED), True, "DELETED"),
    ],
)
def test_the_state_of_a_checkpoint(facts: tuple[journal.Fact, ...], damaged: bool, state: str) -> None:
    assert Stored.of(facts).state("a", damaged=damaged) == state


@pytest.mark.parametrize(
    ("facts", "has_pending"),
    [
        ((), False),
        ((INTENDED,), True),
        ((INTENDED, UPLOADED), False),
        ((INTENDED, REFUSED), False),
        ((INTENDED, DELETED), True),
        ((INTENDED, DELETED, REMOVED), False),
        ((PARTLY,), True),
        ((PARTLY, PARTED), False),
    ],
)
def test_what_is_begun_is_known_until_it_is_finished(
    facts: tuple[journal.Fact, ...], has_pending: bool
) -> None:
    assert Stored.of(facts).has_pending is has_pending


def test_deleted_files_are_no_part_of_a_checkpoint() -> None:
    checkpoint = Checkpoint("a", 1, {"weights": 3, "optimizer": 5})
    assert Stored.of([PARTLY]).remaining(checkpoint) == {"weights": 3}
    assert Stored().remaining(checkpoint) == {"weights": 3, "optimizer": 5}


def test_every_fact_survives_the_journal() -> None:
    trouble = journal.StorageBlocked(why="away")
    for fact in (UPLOADED, INTENDED, REFUSED, DELETED, REMOVED, PARTLY, PARTED, trouble):
        entry = journal.Entry(1.0, fact)
        assert journal.decode(journal.encode(entry)) == entry


LOSS = Goal("loss", smaller_is_better=True)


def validation(steps: int, loss: object) -> Validation:
    return Validation(steps, {"loss": loss})


def checkpoint(steps: int) -> Checkpoint:
    return Checkpoint(f"c{steps}", steps, {"state": 10, "more/data": 5})


def test_a_trial_without_runs_has_made_no_progress() -> None:
    assert trial_progress((), LOSS) == Progress()


def test_one_run() -> None:
    run = RunRecords(
        training=Training(5, {"loss": 1}),
        validations=(validation(2, 0.5), validation(4, 0.7)),
        checkpoints=(checkpoint(2), checkpoint(4)),
    )
    assert trial_progress((run,), LOSS) == Progress(
        steps_completed=5,
        best=validation(2, 0.5),
        validations=(validation(2, 0.5), validation(4, 0.7)),
        training=Training(5, {"loss": 1}),
        checkpoints=(
            CheckpointState(
                uuid="c4",
                run=0,
                steps_completed=4,
                size=15,
                files=2,
                state="COMPLETED",
                validation=validation(4, 0.7),
            ),
            CheckpointState(
                uuid="c2",
                run=0,
                steps_completed=2,
                size=15,
                files=2,
                state="COMPLETED",
                validation=validation(2, 0.5),
            ),
        ),
    )


def test_what_a_later_run_repeats_counts_once() -> None:
    first = RunRecords(validations=(validation(2, 0.5), validation(4, 0.4)), checkpoints=(checkpoint(2),))
    second = RunRecords(restored=Restored("c2", 2), validations=(validation(4, 0.3),))
    progress = trial_progress((first, second), LOSS)
    assert progress.validations == (validation(2, 0.5), validation(4, 0.3))
    assert progress.best == validation(4, 0.3)


def test_a_run_that_began_anew_supersedes_everything_before_it() -> None:
    first = RunRecords(validations=(validation(2, 0.1),))
    second = RunRecords(training=Training(1, {}), validations=(validation(2, 0.9),))
    assert trial_progress((first, second), LOSS).validations == (validation(2, 0.9),)


def test_a_run_that_died_before_it_trained_supersedes_nothing() -> None:
    first = RunRecords(validations=(validation(2, 0.1),), checkpoints=(checkpoint(2),))
    progress = trial_progress((first, RunRecords(started=True)), LOSS)
    assert progress.validations == (validation(2, 0.1),)
    assert progress.steps_completed == 2


def test_a_restore_further_back_supersedes_more_than_one_run() -> None:
    first = RunRecords(
        validations=(validation(2, 1.0), validation(4, 1.1)), checkpoints=(checkpoint(2), checkpoint(4))
    )
    second = RunRecords(
        restored=Restored("c4", 4), validations=(validation(6, 1.2),), checkpoints=(checkpoint(6),)
    )
    third = RunRecords(
        restored=Restored("c2", 2),
        validations=(validation(4, 2.1),),
        rejected=(CheckpointRejected("c6", "truncated"), CheckpointRejected("c4", "gone")),
    )
    progress = trial_progress((first, second, third), LOSS)
    assert progress.validations == (validation(2, 1.0), validation(4, 2.1))
    assert [(c.uuid, c.state) for c in progress.checkpoints] == [
        ("c6", "ERROR"),
        ("c4", "ERROR"),
        ("c2", "COMPLETED"),
    ]


def test_weights_of_another_trial_are_a_beginning() -> None:
    first = RunRecords(restored=Restored("foreign", 500), validations=(validation(2, 1.0),))
    second = RunRecords(restored=Restored("foreign", 500), validations=(validation(2, 0.8),))
    assert trial_progress((first, second), LOSS).validations == (validation(2, 0.8),)


@pytest.mark.parametrize("value", [None, math.nan, "0.1", True, [0.1]])
def test_what_is_no_number_is_never_the_best(value: object) -> None:
    run = RunRecords(validations=(validation(1, value), validation(2, 3.0)))
    assert trial_progress((run,), LOSS).best == validation(2, 3.0)
    assert trial_progress((RunRecords(validations=(validation(1, value),)),), LOSS).best is None


@pytest.mark.parametrize(("smaller", "best"), [(True, 1.0), (False, 2.0)])
def test_the_goal_says_which_way_is_better_and_the_first_of_equals_wins(smaller: bool, best: float) -> None:
    values = (1.0, 2.0, 1.0, 2.0)
    run = RunRecords(validations=tuple(validation(i, value) for i, value in enumerate(values)))
    found = trial_progress((run,), Goal("loss", smaller_is_better=smaller)).best
    assert found == validation(values.index(best), best)


def with_fraction(
    number: int, fraction: float | None, *, state: str = "RUNNING", released: bool = False
) -> TrialState:
    return TrialState(id=number, state=state, released=released, progress=Progress(fraction=fraction))


@pytest.mark.parametrize(
    ("decided", "share", "trials", "progress"),
    [
        (0.0, 0.0, [], 0.0),
        (0.25, 0.25, [with_fraction(1, 1.0, state="COMPLETED", released=True), with_fraction(2, 0.5)], 0.375),
        (0.25, 0.25, [with_fraction(2, None)], 0.25),
        (0.4, 0.0, [with_fraction(1, 0.9), with_fraction(2, 0.9)], 0.4),
        (
            1.0,
            0.5,
            [with_fraction(1, 0.5, released=True), with_fraction(2, 1.0, state="COMPLETED", released=True)],
            0.75,
        ),
        (1.0, 1.0, [with_fraction(1, 0.5)], 1.0),
        (1.0, 1.0, [with_fraction(1, 0.25, state="ERROR", released=True)], 0.25),
    ],
    ids=["nothing yet", "parts", "unknown part", "segments", "continued", "never above 1", "failed"],
)
def test_the_progress_of_a_search(
    decided: float, share: float, trials: list[TrialState], progress: float
) -> None:
    found = {one.id: one for one in trials}
    state = ExperimentState(header=HEADER, state="RUNNING", trials=found, decided=decided, share=share)
    assert state.progress == pytest.approx(progress)


def test_what_is_completed_is_done_whatever_was_counted() -> None:
    assert ExperimentState(header=HEADER, state="COMPLETED").progress == 1
