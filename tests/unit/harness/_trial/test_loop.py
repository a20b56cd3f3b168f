from __future__ import annotations

import math
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from threading import Event
from time import sleep
from typing import TYPE_CHECKING

import pytest

from determined._contract.errors import InvalidHP, InvalidTrialError, StorageError
from determined._contract.records import ExitReason, Stage
from determined._contract.run_info import RunInfo
from determined._trial.loop import Loop, Position, SavePolicy, Throughput
from determined._trial.schedule import Period, Schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence


BEST = SavePolicy("best", "loss")
NONE = SavePolicy("none")


class FakeRun:
    """Keeps what it is told in one list."""

    def __init__(self, *, best_validation: float | None = None) -> None:
        self.info = RunInfo(
            experiment_id=1,
            trial_id=1,
            run=0,
            trial_seed=0,
            slots=0,
            entrypoint="m:T",
            run_dir="",
            context_dir="",
            context_name="",
            checkpoint_dir="",
            best_validation=best_validation,
        )
        self.told: list[tuple[object, ...]] = []
        self.measured: list[tuple[str, int, list[str]]] = []
        self.stop_asked = False
        self.spares: list[int] = []

    def enter(self, stage: Stage) -> None:
        self.told.append(("enter", stage.value))

    def report_windows(self, found: Sequence[tuple[int, Mapping[str, object]]]) -> None:
        self.told.extend(("training", steps_completed, metrics) for steps_completed, metrics in found)

    def report_validation(self, steps_completed: int, metrics: Mapping[str, object]) -> None:
        self.told.append(("validation", steps_completed, metrics))

    def report_metrics(self, group: str, steps_completed: int, metrics: Mapping[str, object]) -> None:
        self.measured.append((group, steps_completed, sorted(metrics)))

    def report_progress(self, fraction: float) -> None:
        self.told.append(("progress", fraction))

    @contextmanager
    def store_checkpoint(
        self, steps_completed: int, metadata: Mapping[str, object]
    ) -> Iterator[tuple[Path, str]]:
        yield Path("draft"), f"uuid-{steps_completed}"
        self.told.append(("checkpoint", steps_completed))

    @contextmanager
    def spare_checkpoint(
        self, steps_completed: int, metadata: Mapping[str, object], fill: Callable[[Path], object]
    ) -> Iterator[None]:
        fill(Path("draft"))
        self.spares.append(steps_completed)
        yield

    def open_checkpoint(self) -> None:
        return None

    def should_stop(self) -> bool:
        return self.stop_asked

    def asked_to_stop(self) -> bool:
        return self.stop_asked

    def barrier(self) -> bool:
        return True

    def of(self, kind: str) -> list[object]:
        return [told[1] for told in self.told if told[0] == kind]


class FakeTrial:
    """Counts. `on_batch` is called with the number of batches completed."""

    def __init__(
        self, on_batch: Callable[[int], None] = lambda _: None, losses: tuple[float, ...] = ()
    ) -> None:
        self.steps_completed = self.records_trained = 0
        self.stop_requested = False
        self.positions: list[Position] = []
        self.spares: list[Position] = []
        self.prepared: list[int] = []
        self.told: list[str] = []
        self.rest: Callable[[], None] | None = None
        self.at_once = 1
        self._on_batch, self._losses = on_batch, iter(losses)
        self._come_to: list[int] = []

    def train_until(self, reports: Iterator[int], should_stop: Callable[[], bool]) -> None:
        """Past as many reports at once as it may."""
        for batch in islice(reports, self.at_once):
            if self._train(batch, should_stop):
                return

    def _train(self, batch: int, should_stop: Callable[[], bool]) -> bool:
        stopped = False
        while self.steps_completed < batch and not stopped:
            self._on_batch(self.steps_completed)
            self.steps_completed += 1
            self.records_trained += 2
            stopped = should_stop()
        self._come_to.append(self.steps_completed)
        return stopped

    def reduce(self) -> list[tuple[int, dict[str, object]]]:
        come_to, self._come_to = self._come_to, []
        return [(steps, {"batches": steps}) for steps in come_to]

    def reported(self, steps_completed: int, metrics: Mapping[str, object]) -> None: ...

    def evaluate(self) -> dict[str, object]:
        return {"loss": next(self._losses, 1.0)}

    def prepare_saving(self) -> None:
        self.prepared.append(self.steps_completed)

    def save(
        self, directory: Path, position: Position, *, in_background: bool = False, hooks: bool = True
    ) -> Callable[[], None] | None:
        (self.positions if hooks else self.spares).append(position)
        return self.rest if in_background else None

    def saved(self, uuid: str) -> None:
        self.told.append(f"saved {uuid}")

    def metadata(self) -> dict[str, object]:
        return {}


def test_a_window_is_reported_then_progress_then_validation_then_checkpoint() -> None:
    run = FakeRun()
    assert Loop(FakeTrial(), run, Schedule(max_length=2), NONE).train() is ExitReason.COMPLETED
    assert run.told == [
        ("enter", "train"),
        ("training", 2, {"batches": 2}),
        ("progress", 1.0),
        ("enter", "validate"),
        ("validation", 2, {"loss": 1.0}),
        ("enter", "checkpoint"),
        ("checkpoint", 2),
    ]


def test_reports_that_waited_for_each_other_are_all_made_and_in_order() -> None:
    run, trial = FakeRun(), FakeTrial()
    trial.at_once = 3
    Loop(trial, run, Schedule(max_length=8, report=Period(1), validation=Period(5)), NONE).train()
    order = [told[:2] for told in run.told if told[0] in {"training", "validation"}]
    assert order == [
        *[("training", batch) for batch in range(1, 6)],
        ("validation", 5),
        *[("training", batch) for batch in range(6, 9)],
        ("validation", 8),
    ]


def test_reports_that_waited_are_made_when_the_trial_fails() -> None:
    def fail(batch: int) -> None:
        if batch == 2:
            raise ZeroDivisionError

    run, trial = FakeRun(), FakeTrial(fail)
    trial.at_once = 9
    with pytest.raises(ZeroDivisionError):
        Loop(trial, run, Schedule(max_length=9, report=Period(1)), NONE).train()
    assert run.of("training") == [1, 2]


def test_policy_all_saves_each_validation_and_no_batch_twice() -> None:
    run = FakeRun()
    schedule = Schedule(max_length=6, validation=Period(2), checkpoint=Period(3))
    Loop(FakeTrial(), run, schedule, SavePolicy("all")).train()
    assert run.of("checkpoint") == [2, 3, 4, 6]


def test_policy_none_saves_what_the_schedule_asks_for_and_the_end() -> None:
    run = FakeRun()
    Loop(FakeTrial(), run, Schedule(max_length=5, validation=Period(2), checkpoint=Period(3)), NONE).train()
    assert run.of("checkpoint") == [3, 5]


def test_policy_best_saves_what_is_better_than_the_best_of_the_whole_experiment() -> None:
    run, trial = FakeRun(best_validation=0.5), FakeTrial(losses=(0.6, 0.4, math.nan, 0.45, 0.3, 9.0))
    Loop(trial, run, Schedule(max_length=6, validation=Period(1)), BEST).train()
    assert run.of("checkpoint") == [2, 5, 6]


def test_larger_may_be_better() -> None:
    run, trial = FakeRun(), FakeTrial(losses=(0.6, 0.7, 0.5, 0.5))
    schedule = Schedule(max_length=4, validation=Period(1))
    Loop(trial, run, schedule, SavePolicy("best", "loss", smaller_is_better=False)).train()
    assert run.of("checkpoint") == [1, 2, 4]


def test_an_initial_validation_is_not_saved() -> None:
    run = FakeRun()
    schedule = Schedule(max_length=2, initial_validation=True)
    Loop(FakeTrial(), run, schedule, SavePolicy("all")).train()
    assert (run.of("validation"), run.of("checkpoint")) == ([0, 2], [2])


def test_a_run_that_is_asked_to_leave_finishes_its_batch_and_saves() -> None:
    run = FakeRun()
    trial = FakeTrial(on_batch=lambda done: setattr(run, "stop_asked", done == 4))
    schedule = Schedule(max_length=10, validation=Period(5), report=Period(3))
    assert Loop(trial, run, schedule, NONE).train() is ExitReason.PREEMPTED
    assert (run.of("training"), run.of("validation"), run.of("checkpoint")) == ([3, 5], [], [5])
    assert trial.positions == [Position(5, None)]


def test_a_run_that_is_asked_to_leave_while_it_validates_trains_no_more() -> None:
    run, trial = FakeRun(), FakeTrial()
    trial.evaluate = lambda: setattr(run, "stop_asked", True) or {"loss": 1.0}  # type: ignore[method-assign]
    assert (
        Loop(trial, run, Schedule(max_length=10, validation=Period(5)), NONE).train() is ExitReason.PREEMPTED
    )
    assert trial.positions == [Position(5, 5)]


def test_being_asked_to_leave_in_the_last_validation_changes_nothing() -> None:
    run, trial = FakeRun(), FakeTrial()
    trial.evaluate = lambda: setattr(run, "stop_asked", True) or {"loss": 1.0}  # type: ignore[method-assign]
    assert Loop(trial, run, Schedule(max_length=3), NONE).train() is ExitReason.COMPLETED


def test_a_validation_that_is_made_up_for_is_saved_with_its_trial() -> None:
    run, trial = FakeRun(), FakeTrial()
    trial.steps_completed = 10
    loop = Loop(trial, run, Schedule(max_length=10), NONE, Position(10, None))
    assert loop.train() is ExitReason.COMPLETED
    assert (run.of("training"), run.of("validation"), trial.positions) == ([], [10], [Position(10, 10)])


def test_a_trial_that_asks_to_stop_is_saved_at_its_next_report_without_a_final_validation() -> None:
    run, trial = FakeRun(), FakeTrial()
    trial = FakeTrial(on_batch=lambda done: setattr(trial, "stop_requested", done >= 1))
    schedule = Schedule(max_length=500, report=Period(50))
    assert Loop(trial, run, schedule, NONE).train() is ExitReason.STOPPED
    assert (run.of("training"), run.of("validation"), run.of("checkpoint")) == ([50], [], [50])


def invalid_at(batch: int) -> Callable[[int], None]:
    def on_batch(done: int) -> None:
        if done == batch:
            raise InvalidHP("too deep")

    return on_batch


def test_invalid_hyperparameters_leave_a_checkpoint_of_what_was_trained() -> None:
    run = FakeRun()
    with pytest.raises(InvalidHP):
        Loop(FakeTrial(invalid_at(3)), run, Schedule(max_length=9), NONE).train()
    assert run.of("checkpoint") == [3]


def test_invalid_hyperparameters_before_the_first_batch_leave_nothing() -> None:
    run = FakeRun()
    with pytest.raises(InvalidHP):
        Loop(FakeTrial(invalid_at(0)), run, Schedule(max_length=9), NONE).train()
    assert run.of("checkpoint") == []


@pytest.mark.parametrize(
    ("metrics", "why"),
    [
        ({"accuracy": 0.5}, "searcher.metric is 'loss', but validation reported only: accuracy"),
        ({"loss": [1.0, 2.0]}, "the searcher metric loss is not a number"),
    ],
)
def test_a_searcher_metric_that_is_missing_or_no_number_is_named(
    metrics: dict[str, object], why: str
) -> None:
    trial = FakeTrial()
    trial.evaluate = lambda: metrics  # type: ignore[method-assign]
    with pytest.raises(InvalidTrialError, match=why):
        Loop(trial, FakeRun(), Schedule(max_length=1), BEST).train()


@pytest.mark.parametrize(
    ("config", "policy"),
    [
        ({"searcher": {"metric": "loss"}}, BEST),
        ({"searcher": {"metric": "acc", "smaller_is_better": False}}, SavePolicy("best", "acc", False)),
        ({"checkpoint_policy": "none", "searcher": {"metric": "loss"}}, SavePolicy("none", "loss")),
        ({}, SavePolicy("all")),
    ],
)
def test_the_policy_is_read_from_the_config(config: dict[str, object], policy: SavePolicy) -> None:
    assert SavePolicy.configured(config) == policy


def test_training_goes_on_while_a_checkpoint_is_written_and_its_record_follows() -> None:
    trained_past, run = Event(), FakeRun()
    trial = FakeTrial(lambda batch: trained_past.set() if batch == 3 else None)

    def rest() -> None:
        assert trained_past.wait(10)

    trial.rest = rest
    assert (
        Loop(trial, run, Schedule(max_length=4, checkpoint=Period(2)), NONE).train() is ExitReason.COMPLETED
    )
    told = [told for told in run.told if told[0] in {"training", "checkpoint"}]
    assert told.index(("checkpoint", 2)) < told.index(("checkpoint", 4))
    assert trial.told == ["saved uuid-2", "saved uuid-4"]
    assert trial.prepared == [2]


def test_a_checkpoint_that_cannot_be_written_ends_training_at_the_next_report() -> None:
    def full() -> None:
        raise StorageError("the disk is full")

    trial, run = FakeTrial(), FakeRun()
    trial.rest = full
    with pytest.raises(StorageError):
        Loop(trial, run, Schedule(max_length=100, checkpoint=Period(2), report=Period(1)), NONE).train()
    assert trial.steps_completed <= 4
    assert (run.of("checkpoint"), run.of("enter")[-1]) == ([], "checkpoint")


def test_a_validation_waits_for_the_checkpoint_before_it() -> None:
    run, trial = FakeRun(), FakeTrial()
    trial.rest = lambda: sleep(0.05)
    Loop(trial, run, Schedule(max_length=4, checkpoint=Period(2), validation=Period(3)), NONE).train()
    order = [told[:2] for told in run.told if told[0] in {"validation", "checkpoint"}]
    assert order == [("checkpoint", 2), ("validation", 3), ("validation", 4), ("checkpoint", 4)]


def test_a_trial_that_fails_still_keeps_the_checkpoint_that_is_being_written() -> None:
    def fail(batch: int) -> None:
        if batch == 2:
            raise ZeroDivisionError

    run, trial = FakeRun(), FakeTrial(fail)
    trial.rest = lambda: sleep(0.05)
    with pytest.raises(ZeroDivisionError):
        Loop(trial, run, Schedule(max_length=4, checkpoint=Period(2)), NONE).train()
    assert run.of("checkpoint") == [2]


def test_what_is_saved_last_is_not_saved_beside_training() -> None:
    run, trial = FakeRun(), FakeTrial()
    trial.rest = lambda: pytest.fail("nothing is trained any more")
    Loop(trial, run, Schedule(max_length=2), NONE).train()
    assert (run.of("checkpoint"), trial.prepared) == ([2], [])


def test_how_fast_it_trained_is_told_at_the_end_and_now_and_then() -> None:
    run = FakeRun()
    Loop(FakeTrial(), run, Schedule(max_length=9, report=Period(3)), NONE).train()
    assert run.measured == [("throughput", 9, ["batches_per_second", "records_per_second"])]


def test_before_the_last_validation_alone_a_spare_checkpoint_is_written() -> None:
    run, trial = FakeRun(), FakeTrial()
    schedule = Schedule(max_length=4, validation=Period(2))
    assert Loop(trial, run, schedule, NONE).train() is ExitReason.COMPLETED
    assert run.spares == [4]
    assert trial.spares == [Position(4, 2)]
    assert run.of("checkpoint") == [4]


def test_no_spare_checkpoint_is_written_where_there_is_one() -> None:
    run = FakeRun()
    schedule = Schedule(max_length=4)
    Loop(FakeTrial(), run, schedule, NONE, Position(4, None)).train()
    assert run.spares == []


def test_it_is_due_after_ten_seconds_of_training() -> None:
    throughput = Throughput()
    assert not throughput.add(4.0, 10, 320)
    assert throughput.add(6.0, 10, 320)
    assert throughput.take() == {"batches_per_second": 2.0, "records_per_second": 64.0}
    assert not throughput.add(1.0, 10, 320)


def test_records_of_an_unknown_number_are_left_out() -> None:
    throughput = Throughput()
    throughput.add(2.0, 4, 0)
    assert throughput.take() == {"batches_per_second": 2.0}
