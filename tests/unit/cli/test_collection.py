from __future__ import annotations

import json

import pytest


@pytest.fixture
def uuid(shell, project):
    """The checkpoint of an experiment that was trained."""
    shell("detbuild", "create", "const.yaml", ".")
    return shell("detbuild", "checkpoint", "list", "1", "-q").out.strip()


def state(shell):
    (row,) = json.loads(shell("detbuild", "checkpoint", "list", "1", "--json").out)
    return row["state"], row["directory"]


@pytest.mark.parametrize("words", [("detbuild", "checkpoint", "delete"), ("det", "c", "rm")])
def test_a_checkpoint_is_deleted_and_its_uuid_printed(shell, uuid, words):
    outcome = shell(*words, uuid[:8], "--yes")
    assert (outcome.code, outcome.out) == (0, f"{uuid}\n")
    assert state(shell) == ("DELETED", None)
    assert not (shell.home / "experiments" / "1" / "checkpoints" / uuid).exists()


def test_some_files_of_a_checkpoint_are_deleted(shell, uuid):
    assert shell("det", "c", "rm", uuid, "--glob", "weig*", "-y").code == 0
    assert state(shell)[0] == "PARTIALLY_DELETED"
    assert "intact" in shell("detbuild", "checkpoint", "describe", uuid).out
    assert shell("det", "c", "rm", uuid, "--glob", "**", "-y").code == 0
    assert state(shell)[0] == "DELETED"


def test_a_registered_checkpoint_is_not_deleted(shell, uuid):
    shell("detbuild", "model", "create", "net")
    shell("detbuild", "model", "register-version", "net", uuid)
    outcome = shell("det", "c", "rm", uuid, "-y")
    assert (outcome.code, "is registered as net:1" in outcome.err) == (2, True)
    assert state(shell)[0] == "COMPLETED"


def test_garbage_is_shown_first_and_then_removed(shell, uuid):
    none = ("--save-trial-best", "0", "--save-trial-latest", "0")
    outcome = shell("detbuild", "checkpoint", "gc", "1", "--dry-run")
    assert (outcome.out, outcome.err) == ("", "0 checkpoints would be deleted, 1 checkpoint kept\n")
    assert shell("detbuild", "checkpoint", "gc", "1", *none, "--dry-run").out == f"{uuid}\n"
    assert state(shell)[0] == "COMPLETED"
    outcome = shell("detbuild", "checkpoint", "gc", "1", *none, "--json")
    assert json.loads(outcome.out) == {"kept": [], "deleted": [uuid]}
    assert state(shell) == ("DELETED", None)


def test_a_new_policy_of_an_ended_experiment_is_acted_on_at_once(shell, uuid):
    none = ("--save-experiment-best", "0", "--save-trial-best", "0", "--save-trial-latest", "0")
    assert shell("det", "e", "set", "gc-policy", "1", *none, "--yes").out == f"{uuid}\n"
    assert state(shell) == ("DELETED", None)
    again = shell("detbuild", "checkpoint", "gc", "1", "--json")
    assert json.loads(again.out) == {"kept": [], "deleted": []}


def test_a_checkpoint_from_elsewhere_can_be_started_from(shell, project, tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "state_dict.pth").write_bytes(b"weights")
    taken = shell("detbuild", "checkpoint", "import", str(tmp_path / "theirs")).out.strip()
    source = f"searcher.source_checkpoint_uuid={taken}"
    assert shell("detbuild", "create", "const.yaml", ".", "--config", source).code == 0
    brought = shell.home / "experiments" / "1" / "checkpoints" / taken / "state_dict.pth"
    assert brought.read_bytes() == b"weights"
