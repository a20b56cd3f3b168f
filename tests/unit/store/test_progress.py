from __future__ import annotations

import math

import pytest

from detbuild.store.progress import CheckpointState, Goal, Progress, trial_progress
from detbuild.store.runs import RunRecords
from determined._records import Checkpoint, CheckpointRejected, Restored, Training, Validation

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
