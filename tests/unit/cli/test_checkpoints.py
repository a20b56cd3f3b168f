from __future__ import annotations

import json
import os

import pytest


@pytest.fixture
def uuid(shell, project):
    """The checkpoint of an experiment that was trained."""
    shell("detbuild", "create", "const.yaml", ".")
    return shell("detbuild", "checkpoint", "list", "1", "-q").out.strip()


def test_checkpoints_are_listed_with_what_they_are_worth(shell, uuid):
    head, row = shell("detbuild", "checkpoint", "list", "1").out.splitlines()
    assert head.split() == ["UUID", "TRIAL", "BATCH", "SIZE", "STATE", "METRICS"]
    assert row.split()[:3] == [uuid, "1/1", "1"]
    assert row.split()[-2:] == ["completed", "validation_loss=0.25"]
    (document,) = json.loads(shell("det", "e", "lc", "1", "--json").out)
    assert document["uuid"] == uuid
    assert document["directory"] == f"{shell.home}/experiments/1/checkpoints/{uuid}"


def test_every_key_of_the_json_is_named_in_the_help(shell, uuid):
    text = shell("detbuild", "checkpoint", "list", "--help").out
    (row,) = json.loads(shell("detbuild", "checkpoint", "list", "1", "--json").out)
    assert [key for key in row if f'"{key}"' not in text] == []


def test_a_checkpoint_is_described_with_its_files(shell, uuid):
    out = shell("detbuild", "checkpoint", "describe", uuid[:8]).out
    assert out.startswith(f"checkpoint {uuid}  trial 1/1\nbatch 1  validation_loss=0.25\n")
    assert "3 B  weights" in out
    assert "intact" in out
    lines = shell("detbuild", "checkpoint", "list", "1", "--csv").out.splitlines()
    assert lines[0].startswith("uuid,experiment_id,trial_id,run,steps_completed,state")
    assert lines[1].startswith(uuid)
    document = json.loads(shell("det", "c", "describe", uuid, "--json").out)
    assert (document["contents"]["weights"], document["damage"]) == (3, [])


def test_a_damaged_checkpoint_is_shown_as_such_and_not_copied(shell, uuid, tmp_path):
    (shell.home / "experiments" / "1" / "checkpoints" / uuid / "weights").write_bytes(b"124")
    described = shell("detbuild", "checkpoint", "describe", uuid)
    assert (described.code, "DAMAGED" in described.out) == (4, True)
    outcome = shell("detbuild", "checkpoint", "download", uuid, "-o", str(tmp_path / "copy"))
    assert outcome.code == 4
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("place", ["weights", "manifest.json", "extra"])
def test_a_pipe_in_a_checkpoint_holds_nobody_up(shell, uuid, tmp_path, place):
    checkpoint = shell.home / "experiments" / "1" / "checkpoints" / uuid
    (checkpoint / place).unlink(missing_ok=True)
    os.mkfifo(checkpoint / place)
    for command in (
        ("checkpoint", "describe", uuid),
        ("checkpoint", "describe", uuid, "--json"),
        ("checkpoint", "download", uuid, "-o", str(tmp_path / "copy")),
        ("checkpoint", "delete", uuid, "--glob", "weights", "-y"),
    ):
        outcome = shell("detbuild", *command)
        assert outcome.code == 4
        assert f"is damaged: {place} is not a regular file: a named pipe" in outcome.err.replace(
            f"{checkpoint}/", ""
        )
    assert shell("detbuild", "checkpoint", "list", "1").code == 0
    assert not (tmp_path / "copy").exists()
    assert {path.name for path in checkpoint.iterdir()} == {
        "weights",
        "manifest.json",
        "metadata.json",
        place,
    }
    assert shell("detbuild", "checkpoint", "delete", uuid, "-y").code == 0
    assert list(checkpoint.parent.iterdir()) == []


def test_a_checkpoint_is_copied_to_a_directory(shell, uuid, tmp_path):
    outcome = shell("detbuild", "checkpoint", "download", uuid, "-o", str(tmp_path / "copy"))
    assert (outcome.code, outcome.out) == (0, f"{tmp_path}/copy\n")
    assert (tmp_path / "copy" / "weights").read_bytes() == b"123"


def test_without_a_directory_it_goes_where_determined_puts_it(shell, uuid, project):
    assert shell("det", "checkpoint", "download", uuid).out == f"checkpoints/{uuid}\n"
    assert (project / "checkpoints" / uuid / "weights").is_file()


@pytest.mark.parametrize("option", [(), ("--best",), ("--latest",)])
def test_the_checkpoint_of_a_trial_can_be_had_without_its_name(shell, uuid, tmp_path, option):
    outcome = shell("det", "trial", "download", "1", "-o", str(tmp_path / "copy"), *option)
    assert (outcome.code, outcome.out) == (0, f"{tmp_path}/copy\n")


def test_a_trial_without_checkpoints_has_none_to_download(shell):
    shell.experiment(records=())
    assert shell("det", "trial", "download", "1").code == 2


def test_a_checkpoint_that_is_not_there_is_an_error(shell, uuid):
    outcome = shell("detbuild", "checkpoint", "describe", "nothing")
    assert (outcome.code, outcome.err.splitlines()[0]) == (2, "error: there is no checkpoint 'nothing'")
