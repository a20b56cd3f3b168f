from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from detbuild.cli.table import aligned, csv_text, show_table
from tests.experiments import Report, write_experiment


def read(text):
    return list(csv.reader(io.StringIO(text)))


def test_csv_has_the_names_of_the_json_and_a_line_a_row():
    rows = [{"id": 1, "best": None, "ok": True}, {"id": 2, "best": 0.5, "ok": False}]
    assert csv_text(rows) == "id,best,ok\n1,,True\n2,0.5,False\n"


def test_nested_values_have_dotted_names_and_rows_may_differ():
    rows = [{"a": 1, "hparams": {"lr": 0.1, "opt": {"x": 2}}}, {"a": 2, "hparams": {"bs": 8}}]
    assert read(csv_text(rows)) == [
        ["a", "hparams.lr", "hparams.opt.x", "hparams.bs"],
        ["1", "0.1", "2", ""],
        ["2", "", "", "8"],
    ]


def test_lists_are_json_and_text_with_commas_and_newlines_is_quoted():
    rows = [{"labels": ["a", "b"], "name": 'x, "y"\nz'}]
    assert read(csv_text(rows)) == [["labels", "name"], ['["a", "b"]', 'x, "y"\nz']]


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1"])
def test_text_that_a_spreadsheet_would_run_is_made_plain_and_numbers_are_not(name):
    (_, row) = read(csv_text([{"name": name, "value": -1.5}]))
    assert row == [f"'{name}".replace("\t", "\\t").replace("\r", "\\r"), "-1.5"]


def test_no_rows_are_no_text():
    assert csv_text([]) == ""


LONG = [("ID", "NAME", "STATE"), ("1", "a" * 40 + "1", "RUNNING"), ("2", "日本語", "ERROR")]


def test_columns_are_aligned_by_what_a_terminal_shows():
    assert list(aligned([("A", "B"), ("日本", "x"), ("abcd", "y")], None)) == [
        "A     B",
        "日本  x",
        "abcd  y",
    ]


def test_the_widest_cells_are_cut_in_their_middle_to_fit_a_terminal():
    assert list(aligned(LONG, 30)) == [
        "ID  NAME               STATE",
        "1   aaaaaaaa..aaaaaa1  RUNNING",
        "2   日本語             ERROR",
    ]


def test_nothing_is_cut_where_there_is_no_terminal(capsys):
    show_table([{"name": "a" * 200, "n": 1}], {"NAME": "name", "N": "n"}, empty="", spare=("N",))
    assert capsys.readouterr().out == f"{'NAME':200}  N\n{'a' * 200}  1\n"


def test_spare_columns_go_before_anything_is_cut(capsys, monkeypatch):
    monkeypatch.setattr("detbuild.cli.table.terminal_width", lambda: 30)
    rows = [{"name": "a" * 20, "spare": "b" * 20}]
    show_table(rows, {"NAME": "name", "SPARE": "spare"}, empty="", spare=("SPARE",))
    assert capsys.readouterr().out == f"NAME\n{'a' * 20}\n"


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
