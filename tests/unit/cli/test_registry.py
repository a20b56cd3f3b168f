from __future__ import annotations

import json

import pytest

from tests.experiments import uuids, write_experiment


@pytest.fixture
def uuid(shell):
    return uuids(write_experiment(shell.home))[0]


def test_a_model_gets_versions_that_are_checkpoints(shell, uuid):
    assert shell("det", "model", "create", "net", "--description", "d", "--label", "a").out == "net\n"
    assert shell("det", "m", "register-version", "net", uuid[:8], "--comment", "good").out == "1\n"
    (row,) = json.loads(shell("detbuild", "model", "list", "--json").out)
    (version,) = row["versions"]
    assert (row["name"], row["description"], row["labels"]) == ("net", "d", ["a"])
    assert (version["version"], version["checkpoint"], version["comment"]) == (1, uuid, "good")
    assert json.loads(shell("detbuild", "model", "list-versions", "net", "--json").out) == [version]


def test_people_see_tables_and_spreadsheets_csv(shell, uuid):
    shell("detbuild", "model", "create", "net", "--metadata", '{"task": "mnist"}')
    shell("detbuild", "model", "register-version", "net", uuid)
    assert shell("detbuild", "model", "list").out.splitlines()[1].split()[:2] == ["net", "1"]
    page = shell("detbuild", "model", "describe", "net").out
    assert "model net" in page
    assert uuid in page
    assert "task" in page
    assert shell("detbuild", "model", "list", "--csv").out.splitlines()[0].startswith("name,created,")
    assert uuid in shell("detbuild", "model", "list-versions", "net", "--csv").out


def test_a_checkpoint_that_is_not_there_is_not_registered(shell, uuid):
    shell("detbuild", "model", "create", "net")
    assert "there is no checkpoint" in shell("detbuild", "model", "register-version", "net", "ffff").err
    assert "there is no model other" in shell("detbuild", "model", "register-version", "other", uuid).err
    assert json.loads(shell("detbuild", "model", "list-versions", "net", "--json").out) == []


def test_a_model_or_a_version_is_deleted_when_that_is_meant(shell, uuid):
    shell("detbuild", "model", "create", "net")
    for _ in range(2):
        shell("detbuild", "model", "register-version", "net", uuid)
    assert shell("detbuild", "model", "delete", "net").code == 2
    assert shell("detbuild", "model", "delete", "net", "--version", "2", "--yes").code == 0
    assert [v["version"] for v in json.loads(shell("det", "m", "list-versions", "net", "--json").out)] == [1]
    assert shell("detbuild", "model", "delete", "net", "--yes").code == 0
    assert shell("detbuild", "model", "list", "--json").out == "[]\n"


@pytest.mark.parametrize("metadata", ["{", "[1]"])
def test_metadata_are_a_json_object(shell, metadata):
    assert shell("detbuild", "model", "create", "net", "--metadata", metadata).code == 2


def test_an_empty_registry_says_how_to_begin(shell):
    assert "detbuild model create NAME" in shell("detbuild", "model", "list").err


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
    assert (outcome.code, "no template 'cpu' in" in outcome.err) == (2, True)
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
