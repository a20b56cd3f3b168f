from __future__ import annotations

import pytest

from detbuild.store import journal
from detbuild.store.measured import Measurement, measurements, summary
from detbuild.store.state import load
from determined._event_file import EventFile
from determined._records import Checkpoint, Measured, Restored, Validation
from tests.experiments import Report, write_experiment

UUID = "5f2a6f0e-6a54-4d54-9c1b-0d0f3f2d9f11"


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
