from __future__ import annotations

import json
import math
from dataclasses import replace

from detbuild.api.report import read_all
from detbuild.report.document import document
from determined._contract.records import Line, Training, encode
from tests.synthetic import HOSTILE, experiment


def test_a_document_has_every_trial_with_its_curves_log_and_failure(tmp_path):
    made = document(read_all([experiment(tmp_path, 5)]), made=1.7e9 + 100)
    assert [trial["id"] for trial in made["trials"]] == [1, 2, 3, 4, 5]
    assert {(table["trial"], table["group"]) for table in made["tables"]} == {
        (trial, group) for trial in range(5) for group in ("training", "validation")
    }
    failed = made["trials"][3]
    assert failed["runs"][0]["hint"] == "a smaller batch"
    assert failed["hparams"]["optimizer"]["name"] in {"adam", "sgd", "rmsprop", "adamw"}
    assert failed["epochs_per_batch"] == 0.01
    assert made["experiments"][0]["log_hparams"] == ["lr"]


def test_secrets_are_nowhere_in_it(tmp_path):
    made = document(read_all([experiment(tmp_path, 2)]), made=1.7e9)
    assert "hunter2" not in json.dumps(made)
    assert made["experiments"][0]["config"]["searcher"]["metric"] == "validation_loss"
    assert any("********" in trial["log"]["text"] for trial in made["trials"])


def test_experiments_are_compared_in_one_document(tmp_path):
    made = document(read_all([experiment(tmp_path, 1), experiment(tmp_path, 2, name=HOSTILE)]), made=1.7e9)
    assert [trial["experiment"] for trial in made["trials"]] == [0, 1, 1]


def test_a_page_says_that_its_curves_are_thinned(tmp_path):
    made = document(read_all([experiment(tmp_path, 1, points=500)], points=50), made=1.7e9)
    assert any("are downsampled" in note for note in made["notes"])
    assert all(len(table["steps"]) <= 60 for table in made["tables"])


def test_an_experiment_without_trials_or_files_is_shown_too(tmp_path):
    folder = experiment(tmp_path, 0)
    for name in ("config.json", "config.yaml", "Dockerfile"):
        (folder.path / name).unlink()
    assert document(read_all([folder]), made=1.7e9)["trials"] == []


def test_metrics_that_are_no_numbers_are_left_open_and_the_rest_is_rounded(tmp_path):
    folder = experiment(tmp_path, 1)
    run = folder.run(1, 0)
    values = (1 / 3, math.nan, math.inf, 10**400, 1e-300)
    records = [Training(n, {"loss": value}) for n, value in enumerate(values)]
    run.events.write_bytes(b"".join(encode(Line(n, run.name, 0.0, r)) for n, r in enumerate(records, 1)))
    made = document(read_all([folder]), made=1.7e9)
    (table,) = made["tables"]
    assert "2 values are NaN or infinite and shown as gaps in the curves" in made["notes"]
    assert table["metrics"] == {"loss": [0.3333333, None, None, None, 1e-300]}


def test_a_page_of_searches_by_different_metrics_says_which_are_ranked(tmp_path):
    one, other = experiment(tmp_path, 1), experiment(tmp_path, 1)
    header = replace(other.header(), metric="accuracy")
    other.write(header, {})
    assert document(read_all([one, other]), made=1.7e9)["notes"][0] == (
        "only trials with the searcher metric validation_loss are ranked; others have accuracy"
    )
