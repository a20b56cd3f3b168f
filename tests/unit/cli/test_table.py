from __future__ import annotations

import csv
import io

import pytest

from detbuild.cli.table import aligned, csv_text, show_table


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
