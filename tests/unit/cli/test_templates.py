from __future__ import annotations

import json

import pytest


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "part.yaml"
    path.write_text("# mine\nresources: {slots_per_trial: 0}\n")
    return str(path)


def test_a_template_is_kept_as_it_was_written(shell, file):
    assert shell("det", "tpl", "create", "cpu", file).out == "cpu\n"
    assert shell("det", "template", "describe", "cpu").out == "# mine\nresources: {slots_per_trial: 0}\n"
    (row,) = json.loads(shell("detbuild", "template", "list", "--json").out)
    assert row == {"name": "cpu", "file": str(shell.home / "templates" / "cpu.yaml")}


def test_a_name_is_given_once_and_set_replaces_it(shell, file, tmp_path):
    shell("detbuild", "template", "create", "cpu", file)
    outcome = shell("detbuild", "template", "create", "cpu", file)
    assert (outcome.code, "template cpu already exists" in outcome.err) == (2, True)
    (tmp_path / "part.yaml").write_text("name: x\n")
    assert shell("detbuild", "template", "set", "cpu", file).code == 0
    assert shell("detbuild", "template", "describe", "cpu").out == "name: x\n"


def test_a_removed_template_is_gone(shell, file):
    shell("detbuild", "template", "create", "cpu", file)
    shell("detbuild", "template", "remove", "cpu")
    outcome = shell("detbuild", "template", "describe", "cpu")
    assert (outcome.code, "there is no template cpu" in outcome.err) == (2, True)
    assert shell("detbuild", "template", "remove", "cpu").code == 2


@pytest.mark.parametrize("name", ["../x", "a/b", ".x", ""])
def test_a_name_that_would_leave_the_directory_is_refused(shell, file, name):
    assert "not a valid template name" in shell("detbuild", "template", "create", name, file).err


@pytest.mark.parametrize("text", ["- a\n", "a: [\n"])
def test_what_is_no_map_of_fields_is_refused(shell, file, tmp_path, text):
    (tmp_path / "part.yaml").write_text(text)
    assert shell("detbuild", "template", "create", "cpu", file).code == 2
    assert shell("detbuild", "template", "list", "--json").out == "[]\n"


def test_details_show_what_is_in_the_templates(shell, tmp_path):
    (tmp_path / "part.yaml").write_text("max_restarts: 1\n")
    shell("det", "tpl", "set", "part", str(tmp_path / "part.yaml"))
    out = shell("det", "tpl", "list", "--details").out
    assert out.splitlines()[1:] == ["    max_restarts: 1"]
    (row,) = json.loads(shell("detbuild", "template", "list", "--details", "--json").out)
    assert row["text"] == "max_restarts: 1\n"
