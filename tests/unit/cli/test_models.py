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
