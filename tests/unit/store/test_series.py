from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from detbuild.store import journal
from detbuild.store.series import Row, reports, tables, thinned
from detbuild.store.state import load, run_records
from determined._records import Checkpoint, Line, Restored, Training, Validation, encode
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
