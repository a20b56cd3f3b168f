from __future__ import annotations

import json

import pytest


@pytest.fixture
def model_dir(tmp_path):
    directory = tmp_path / "model"
    (directory / "__pycache__").mkdir(parents=True)
    (directory / "model_def.py").write_text("x = 1\n")
    (directory / "notes.log").write_text("")
    (directory / ".detignore").write_text("*.log\n")
    return directory


def test_what_goes_in_and_which_rule_keeps_the_rest_out(shell, model_dir):
    outcome = shell("detbuild", "context", str(model_dir))
    assert (outcome.code, outcome.err) == (0, "")
    assert [line.split(maxsplit=2) for line in outcome.out.splitlines()] == [
        ["6", "B", "model_def.py"],
        ["out", ".detignore", "(`.detignore`, built in)"],
        ["out", "__pycache__/", "(`__pycache__/`, built in)"],
        ["out", "notes.log", "(`*.log`, .detignore:1)"],
        ["1", "files,", "6 B go in; 3 paths stay out"],
    ]


def test_the_same_for_programs(shell, model_dir):
    document = json.loads(shell("detbuild", "context", str(model_dir), "--json").out)
    assert document["kept"] == [{"path": "model_def.py", "kind": "file", "size": 6}]
    assert document["left_out"][2] == {"path": "notes.log", "rule": "*.log", "where": ".detignore:1"}
    assert (document["files"], document["size"], document["warnings"]) == (1, 6, [])


def test_an_included_file_is_listed_too(shell, model_dir, tmp_path):
    (tmp_path / "extra.py").write_text("")
    assert "extra.py" in shell("detbuild", "context", str(model_dir), "-i", str(tmp_path / "extra.py")).out


def test_a_file_is_not_a_context(shell, model_dir):
    outcome = shell("detbuild", "context", str(model_dir / "model_def.py"))
    assert (outcome.code, outcome.out) == (3, "")
    assert "  mend: " in outcome.err


def test_the_home_directory_is_refused(shell, tmp_path):
    assert shell("detbuild", "context", str(tmp_path)).code == 3
