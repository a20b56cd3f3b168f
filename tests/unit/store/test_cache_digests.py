from __future__ import annotations

import json
import math
import shutil

import pytest

from detbuild.store import cache, journal
from detbuild.store import records as run_records
from detbuild.store.cache import load_cached, remove_companions
from detbuild.store.home import Home
from detbuild.store.state import load
from determined._contract.records import (
    Checkpoint,
    CheckpointRejected,
    Ended,
    Exited,
    ExitReason,
    Line,
    Measured,
    Progress,
    Restored,
    Stage,
    StageEntered,
    Started,
    Training,
    Validation,
    encode,
)
from tests.synthetic import experiment


@pytest.fixture(autouse=True)
def short_runs_are_kept_too(monkeypatch):
    monkeypatch.setattr(cache, "_LONG_RUN", 0)


@pytest.fixture
def home(tmp_path):
    return Home.open(tmp_path)


@pytest.fixture
def folder(home):
    """Four trials that ended and one that runs; the first is repeated by a second run."""
    made = experiment(home.path, 5)
    made.record(journal.RunIntended(trial_id=1, run=1))
    made.record(journal.RunFinished(trial_id=1, run=1, outcome="completed"))
    made.run(1, 1).path.mkdir()
    records = [
        Started(1, "3.11", "0.1"),
        StageEntered(Stage.RESTORE),
        Restored("u", 20),
        CheckpointRejected("v", "damaged"),
        *(Training(n, {"loss": 1 / n}) for n in range(21, 300)),
        Validation(300, {"validation_loss": math.nan, "deep": {"words": ["a", None]}}),
        Measured("mine", 300, {"x": 1}),
        Checkpoint("w", 300, {"a": 1}, {"b": [1.5]}),
        Progress(0.5),
        Ended(ExitReason.COMPLETED, Stage.TRAIN),
        Exited(0),
    ]
    run = made.run(1, 1)
    lines = [encode(Line(n, run.name, 1.7e9, record)) for n, record in enumerate(records, 1)]
    newer = json.dumps({"seq": 400, "run": run.name, "time": 1.7e9, "kind": "profile"}).encode() + b"\n"
    run.events.write_bytes(b"".join(lines) + b"no record\n" + newer)
    return made


def told(state):
    return repr(state)  # not a number is not equal to itself


def test_an_experiment_is_the_same_whether_its_records_were_read_before_or_not(home, folder, monkeypatch):
    wanted = told(load(folder))
    assert told(load_cached(home, folder)) == wanted
    read = []
    monkeypatch.setattr(
        run_records, "read_run", lambda run, **_: read.append(run.name) or run_records.RunRecords()
    )
    again = load_cached(home, folder)
    assert read == ["5-0"]  # the one that runs
    assert told({**again.trials, 5: None}) == told({**load(folder).trials, 5: None})


def test_a_file_that_is_not_as_it_was_is_read_again(home, folder):
    load_cached(home, folder)
    run = folder.run(1, 1)
    with run.events.open("ab") as events:
        events.write(encode(Line(900, run.name, 1.7e9, Validation(310, {"validation_loss": 0.001}))))
    assert load_cached(home, folder).trials[1].progress.best.metrics == {"validation_loss": 0.001}


@pytest.mark.parametrize("damage", [b"", b"no database at all" * 100])
def test_without_digests_or_with_damaged_ones_the_files_are_read(home, folder, damage):
    wanted = told(load_cached(home, folder))
    home.digests.unlink()
    remove_companions(home.digests)
    if damage:
        home.digests.write_bytes(damage)
    assert told(load_cached(home, folder)) == wanted == told(load_cached(home, folder))


def test_what_was_kept_of_an_experiment_goes_with_it(home, folder):
    load_cached(home, folder)
    home.retire(folder.id)
    shutil.rmtree(folder.path)
    other = experiment(home.path, 3)
    load_cached(home, other)
    assert cache._read_digest(home.digests, folder.id) == {}
    assert sorted(cache._read_digest(home.digests, other.id)) == ["1-0", "2-0"]


def test_few_and_short_runs_are_not_worth_keeping(home, folder, monkeypatch):
    monkeypatch.setattr(cache, "_LONG_RUN", 1 << 20)
    wanted = told(load(folder))
    assert told(load_cached(home, folder)) == wanted
    assert not home.digests.exists()
    monkeypatch.setattr(cache, "_LONG_JOURNAL", 100)
    assert told(load_cached(home, folder)) == wanted == told(load_cached(home, folder))
    assert home.digests.exists()
