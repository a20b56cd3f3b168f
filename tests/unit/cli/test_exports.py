from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from tests.experiments import Report, write_experiment


@pytest.fixture
def two(shell):
    write_experiment(shell.home, [[Report(10, 0.5), Report(20, 0.25)], [Report(10, 0.75)]])
    write_experiment(shell.home)


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_several_experiments_are_described_one_after_the_other(shell, two):
    out = shell("detbuild", "describe", "1", "2").out
    assert [line[:12] for line in out.splitlines() if line.startswith("experiment")] == [
        "experiment 1",
        "experiment 2",
    ]
    assert [one["id"] for one in json.loads(shell("det", "e", "describe", "1,2", "--json").out)] == [1, 2]


def test_metrics_are_added_when_they_are_asked_for(shell, two):
    assert "measurements" not in shell("detbuild", "describe", "1", "--json").out
    document = json.loads(shell("detbuild", "describe", "1", "--metrics", "--json").out)
    measured = document["trials"][0]["measurements"]
    assert [(one["group"], one["steps_completed"], one["metrics"]["loss"]) for one in measured] == [
        ("training", 10, 1.0),
        ("validation", 10, 0.5),
        ("training", 20, 0.5),
        ("validation", 20, 0.25),
    ]
    assert "validation  20     loss=0.25" in shell("detbuild", "describe", "1", "--metrics").out


def test_csv_has_a_table_of_each_kind(shell, two):
    tables = shell("detbuild", "describe", "1,2", "--csv").out.split("\n\n")
    experiments, trials, checkpoints = (rows(table) for table in tables)
    assert [row["id"] for row in experiments] == ["1", "2"]
    assert [(row["experiment_id"], row["id"], row["hparams.lr"]) for row in trials] == [
        ("1", "1", "0.1"),
        ("1", "2", "0.2"),
        ("2", "1", "0.1"),
    ]
    assert len(checkpoints) == 4


def test_csv_may_go_into_files(shell, two, tmp_path):
    out = shell("det", "e", "describe", "1", "--metrics", "--csv", "--outdir", str(tmp_path / "out")).out
    names = [Path(line).name for line in out.splitlines()]
    assert names == ["experiments.csv", "trials.csv", "checkpoints.csv", "metrics.csv"]
    metrics = rows((tmp_path / "out" / "metrics.csv").read_text())
    assert [row["metrics.loss"] for row in metrics if row["group"] == "validation"] == ["0.5", "0.25", "0.75"]
    assert shell("detbuild", "describe", "1", "--outdir", "x").code == 2


def test_listings_have_csv_limits_and_offsets(shell, two):
    write_experiment(shell.home)
    assert [row["id"] for row in rows(shell("detbuild", "list", "--csv").out)] == ["3", "2", "1"]
    assert shell("detbuild", "list", "-q", "--limit", "1", "--offset", "1").out == "2\n"
    assert [row["id"] for row in rows(shell("det", "e", "lt", "1", "--csv").out)] == ["1", "2"]


def test_a_trial_is_described_with_its_metrics_or_their_summary(shell, two):
    document = json.loads(shell("det", "t", "describe", "1/1", "--metrics-summary", "--json").out)
    assert document["metrics_summary"]["validation"]["loss"]["min"] == 0.25
    assert "measurements" not in document
    lines = shell("det", "t", "describe", "1/1", "--metrics-summary").out.splitlines()
    assert ["validation", "loss", "2", "0.25", "0.25", "0.5", "0.375"] in [line.split() for line in lines]
    assert [row["steps_completed"] for row in rows(shell("det", "t", "describe", "1/1", "--csv").out)] == [
        "10",
        "10",
        "20",
        "20",
    ]
    assert "loss=0.75" in shell("det", "t", "describe", "1/2", "--metrics").out
