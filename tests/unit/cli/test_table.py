from __future__ import annotations

import csv
import io

import pytest

from detbuild.cli.table import csv_text


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
