from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from determined._contract.errors import InvalidTrialError
from determined._contract.run_info import Length, RunInfo
from determined._trial.schedule import (
    NEVER,
    Period,
    Schedule,
    Stop,
    Units,
    configured,
    milestones,
    parse_length,
    stops,
)

UNITS = Units(epoch=5, batch=32)
PERIODS = st.one_of(st.just(NEVER), st.integers(1, 9).map(Period))
SCHEDULES = st.builds(
    Schedule,
    max_length=st.integers(1, 30),
    report=PERIODS,
    validation=PERIODS,
    checkpoint=PERIODS,
    initial_validation=st.booleans(),
)


def test_a_trial_stops_for_whatever_is_due_first_and_ends_with_everything() -> None:
    schedule = Schedule(max_length=10, report=Period(5), validation=Period(3), checkpoint=Period(4))
    assert list(stops(schedule)) == [
        Stop(3, validate=True, checkpoint=False),
        Stop(4, validate=False, checkpoint=True),
        Stop(6, validate=True, checkpoint=False),
        Stop(8, validate=False, checkpoint=True),
        Stop(9, validate=True, checkpoint=False),
        Stop(10, validate=True, checkpoint=True),
    ]


def test_a_schedule_may_name_its_batches() -> None:
    schedule = Schedule(max_length=9, validation=Period(at=(2, 7)))
    assert [(stop.batch, stop.validate) for stop in stops(schedule)] == [(2, True), (7, True), (9, True)]


def test_reports_may_be_at_given_batches() -> None:
    schedule = Schedule(max_length=9, report=Period(4, at=(3, 4, 9)))
    assert list(schedule.reports(0, 9)) == [3, 4, 8, 9]
    assert list(schedule.reports(3, 6)) == [4, 6]


@given(st.integers(0, 20), st.integers(1, 20), st.integers(0, 9))
def test_reports_are_regular_and_the_last_one_ends_the_segment(begin: int, length: int, every: int) -> None:
    end = begin + length
    found = list(Schedule(max_length=99, report=Period(every)).reports(begin, end))
    assert found == [*(batch for batch in range(begin + 1, end) if every and batch % every == 0), end]


def test_initial_validation_comes_before_the_first_batch_and_is_not_repeated() -> None:
    schedule = Schedule(max_length=2, initial_validation=True)
    first = Stop(0, validate=True, checkpoint=False)
    last = Stop(2, validate=True, checkpoint=True)
    assert list(stops(schedule)) == [first, last]
    assert list(stops(schedule, completed=0, validated=0)) == [last]


def test_a_validation_that_was_due_when_the_run_was_asked_to_leave_is_made_up_for() -> None:
    schedule = Schedule(max_length=6, validation=Period(3))
    assert next(stops(schedule, completed=3, validated=None)) == Stop(3, validate=True, checkpoint=True)
    assert next(stops(schedule, completed=3, validated=3)) == Stop(6, validate=True, checkpoint=True)
    assert list(stops(schedule, completed=6, validated=3)) == [Stop(6, validate=True, checkpoint=True)]


def test_nothing_is_left_of_a_trial_that_is_done() -> None:
    assert list(stops(Schedule(max_length=6), completed=6, validated=6)) == []


@given(SCHEDULES, st.data())
def test_an_interrupted_trial_stops_where_the_uninterrupted_one_does(
    schedule: Schedule, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(1, schedule.max_length))
    whole = list(stops(schedule))
    validated = max((stop.batch for stop in whole if stop.validate and stop.batch < cut), default=None)
    resumed = [*(s for s in whole if s.batch < cut), *stops(schedule, completed=cut, validated=validated)]
    assert [s.batch for s in resumed if s.validate] == [s.batch for s in whole if s.validate]
    assert resumed[-1].batch == schedule.max_length


@pytest.mark.parametrize(
    ("length", "batches"),
    [
        (Length("batches", 7), 7),
        (Length("epochs", 3), 15),
        (Length("records", 96), 3),
        (Length("records", 100), 3),
        (Length("records", 1), 1),
        (Length("records", 0), 0),
    ],
)
def test_lengths_are_counted_in_batches(length: Length, batches: int) -> None:
    assert UNITS.batches(length, "searcher.max_length") == batches


@pytest.mark.parametrize(
    ("unit", "why"),
    [("epochs", "the training data has no length"), ("records", "global_batch_size is not set")],
)
def test_a_length_that_cannot_be_converted_says_why(unit: str, why: str) -> None:
    with pytest.raises(InvalidTrialError, match=why) as caught:
        Units().batches(Length(unit, 2), "min_validation_period")
    assert caught.value.hint == "give min_validation_period in batches"


def test_the_config_gives_periods_and_zero_means_never() -> None:
    config = {
        "min_validation_period": {"epochs": 1},
        "min_checkpoint_period": {"batches": 0},
        "scheduling_unit": 20,
        "perform_initial_validation": True,
    }
    assert configured(config, Length("records", 640), UNITS) == Schedule(
        max_length=20, report=Period(20), validation=Period(5), initial_validation=True
    )


def test_an_empty_config_reports_every_hundred_batches() -> None:
    assert configured({}, Length("batches", 8), UNITS) == Schedule(max_length=8, report=Period(100))


def test_a_length_may_be_a_plain_number_and_nothing_else() -> None:
    assert parse_length(12, "max_length") == Length("batches", 12)
    assert parse_length(None, "max_length") is None
    for wrong in ("12", {"batches": 1, "epochs": 1}, {"steps": 3}, {"batches": "many"}, True):
        with pytest.raises(InvalidTrialError, match="max_length is not a valid length"):
            parse_length(wrong, "max_length")


def test_a_run_validates_at_its_milestones_besides_what_is_due() -> None:
    schedule = Schedule(max_length=9, validation=Period(4).joined((2, 3, 8)))
    assert [stop.batch for stop in stops(schedule) if stop.validate] == [2, 3, 4, 8, 9]


@pytest.mark.parametrize(
    ("length", "counts", "batches"),
    [
        (Length("batches", 8), (2, 4), (2, 4)),
        (Length("epochs", 4), (1, 2), (5, 10)),
        (None, (), ()),
    ],
)
def test_milestones_are_in_the_unit_of_the_length(
    length: Length | None, counts: tuple[int, ...], batches: tuple[int, ...]
) -> None:
    info = RunInfo(
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
        max_length=length,
        milestones=counts,
    )
    assert milestones(info, UNITS) == batches
