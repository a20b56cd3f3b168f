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
        ["in", "the", "image: 1 file, 6 B; left out: 3 paths"],
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
    assert "  hint: " in outcome.err


def test_the_home_directory_is_refused(shell, tmp_path):
    assert shell("detbuild", "context", str(tmp_path)).code == 3


def test_of_many_paths_the_largest_are_named_and_all_on_request(shell, model_dir):
    for number in range(60):
        (model_dir / f"f{number:02}.txt").write_bytes(b"x" * number)
        (model_dir / f"n{number:02}.log").touch()
    found = shell("detbuild", "context", str(model_dir)).out.splitlines()
    assert found[0] == "in the image: 61 files, 1.8 kB; the largest:"
    assert [line.split() for line in found[1:11]] == [
        [str(number), "B", f"f{number:02}.txt"] for number in range(59, 49, -1)
    ]
    assert found[11] == "left out: 63 paths"
    assert found[-2].strip() == "... and 53 more"
    assert "--all" in found[-1]
    assert len(shell("detbuild", "context", str(model_dir), "--all").out.splitlines()) == 61 + 63 + 1


def test_a_context_of_a_terabyte_is_refused_before_it_is_read(shell, project):
    with (project / "huge.bin").open("wb") as file:
        file.truncate(1 << 40)
    outcome = shell("detbuild", "create", "const.yaml", ".", "--dry-run")
    assert (outcome.code, outcome.out) == (3, "")
    assert (
        "has 1.1 TB in 3 files; the limit is 10.0 GB. The largest files:\n       1.1 TB  huge.bin\n"
        in outcome.err
    )
    assert "--allow-any-context" in outcome.err
    (project / ".detignore").write_text("*.bin\n")
    assert shell("detbuild", "create", "const.yaml", ".", "--dry-run").code == 0


def test_the_refusal_of_a_large_context_can_be_lifted(shell, project, monkeypatch):
    monkeypatch.setattr("detbuild.context.walk.LARGEST_CONTEXT", 10)
    assert shell("detbuild", "create", "const.yaml", ".").code == 3
    for command in ("create", "render", "build"):
        assert shell("detbuild", command, "const.yaml", ".", "--allow-any-context").code == 0
