from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detbuild.store import journal
from detbuild.store.metrics import Measurement, Row, measurements, reports, summary, tables, thinned
from detbuild.store.state import load, run_records
from determined._contract.records import Checkpoint, Line, Measured, Restored, Training, Validation, encode
from determined._run.events import EventFile
from tests.experiments import Report, write_experiment
from tests.synthetic import experiment

UUID = "5f2a6f0e-6a54-4d54-9c1b-0d0f3f2d9f11"


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=400), st.integers(2, 50)
)
def test_a_thinned_series_keeps_its_ends_and_its_extremes(values, limit):
    rows = [Row(step, float(step), {"loss": value}) for step, value in enumerate(values)]
    kept = thinned(rows, limit)
    assert len(kept) <= limit + 2
    assert (kept[0], kept[-1]) == (rows[0], rows[-1])
    losses = [row.metrics["loss"] for row in kept]
    assert (min(losses), max(losses)) == (min(values), max(values))


def test_what_a_later_run_repeated_is_not_there_twice(tmp_path):
    folder = experiment(tmp_path, 1)
    folder.record(journal.RunIntended(trial_id=1, run=1))
    first, second = folder.run(1, 0), folder.run(1, 1)
    second.path.mkdir()
    write(first, Training(1, {"loss": 1.0}), Checkpoint(UUID, 1, {}), Training(2, {"loss": 9.0}))
    write(second, Restored(UUID, 1), Training(2, {"loss": 2.0}))
    _, (table,) = tables(folder, load(folder).trials[1], limit=10)
    assert (table.steps, table.metrics) == ((1, 2), {"loss": (1.0, 2.0)})


def write(run, *records):
    run.events.write_bytes(b"".join(encode(Line(n, run.name, 1e9 + n, r)) for n, r in enumerate(records, 1)))


def test_a_long_series_is_bounded_and_says_how_long_it_was(tmp_path):
    folder = experiment(tmp_path, 1, points=2_000)
    training = tables(folder, load(folder).trials[1], limit=100)[1][0]
    assert len(training.steps) <= 102
    assert training.records == 2_000


def test_runs_that_repeat_others_give_the_same_whether_read_at_once_or_one_by_one(tmp_path):
    folder = experiment(tmp_path, 1, points=30)
    for number in (1, 2):
        folder.record(journal.RunIntended(trial_id=1, run=number))
        folder.run(1, number).path.mkdir()
    write(folder.run(1, 0), *(Training(n, {"loss": 1.0 * n}) for n in range(1, 9)), Checkpoint(UUID, 4, {}))
    write(folder.run(1, 1), Restored(UUID, 4), *(Training(n, {"loss": 0.1 * n}) for n in range(5, 12)))
    write(folder.run(1, 2), Restored(UUID, 4), Validation(6, {"loss": math.nan, "deep": {"x": 1}}))
    state = load(folder).trials[1]
    records, found = tables(folder, state, limit=100)
    assert records == run_records(folder, state)
    expected: dict[str, list[int]] = {}
    for group, row in reports(folder, state):
        expected.setdefault(group, []).append(row.steps)
    assert (
        {table.group: list(table.steps) for table in found}
        == expected
        == {"training": [1, 2, 3, 4], "validation": [6]}
    )
    assert [table.records for table in found] == [4, 1]
    assert found[1].metrics["deep.x"] == (1.0,)


@pytest.fixture
def folder(tmp_path):
    return write_experiment(tmp_path / "home", [[Report(10, 0.5), Report(20, 0.25)]])


def read(folder, group=""):
    return [
        (one.run, one.group, one.steps_completed, dict(one.metrics))
        for one in measurements(folder, load(folder).trials[1], group)
    ]


def test_all_reports_come_in_the_order_in_which_they_were_made(folder):
    assert read(folder) == [
        (0, "training", 10, {"loss": 1.0}),
        (0, "validation", 10, {"loss": 0.5, "accuracy": 0.5}),
        (0, "training", 20, {"loss": 0.5}),
        (0, "validation", 20, {"loss": 0.25, "accuracy": 0.5}),
    ]


def test_one_group_may_be_asked_for(folder):
    assert [steps for _, _, steps, _ in read(folder, "validation")] == [10, 20]
    assert read(folder, "inference") == []


def test_what_a_later_run_repeated_is_left_out(tmp_path):
    folder = write_experiment(tmp_path / "home", [[]], state=None)
    for number, records in enumerate(
        (
            [Validation(5, {"loss": 3}), Checkpoint(UUID, 5, {}), Validation(9, {"loss": 2})],
            [Restored(UUID, 5), Measured("mine", 7, {"x": 1}), Validation(9, {"loss": 1})],
        )
    ):
        if number:
            folder.record(journal.RunFinished(trial_id=1, run=0, outcome="error", retry=True))
            folder.record(journal.RunIntended(trial_id=1, run=1))
            folder.record(journal.RunCreated(trial_id=1, run=1, container="c"))
            folder.run(1, 1).path.mkdir()
        events = EventFile(folder.run(1, number).events, f"1-{number}")
        for record in records:
            events.append(record)
        events.close()
    assert read(folder) == [
        (0, "validation", 5, {"loss": 3}),
        (1, "mine", 7, {"x": 1}),
        (1, "validation", 9, {"loss": 1}),
    ]


def test_a_summary_has_the_figures_of_each_metric(folder):
    assert summary(measurements(folder, load(folder).trials[1]))["validation"]["loss"] == {
        "count": 2,
        "last": 0.25,
        "min": 0.25,
        "max": 0.5,
        "sum": 0.75,
        "mean": 0.375,
        "type": "number",
    }


@pytest.mark.parametrize("values", [("a", "b"), (1, "b"), ("a", 2), (True, False)])
def test_what_is_not_always_a_number_is_counted_and_not_added_up(values):
    given = [
        Measurement(run=0, group="g", steps_completed=n, time=0.0, metrics={"m": value})
        for n, value in enumerate(values)
    ]
    figures = summary(iter(given))["g"]["m"]
    assert figures == {"count": 2, "last": values[-1], "type": type(values[-1]).__name__}
