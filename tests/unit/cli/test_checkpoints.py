from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from detbuild.store.state import load
from tests.experiments import Report, write_experiment
from tests.fakes import Exit


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


TRIALS = [
    [Report(1, 0.5, 0.9), Report(2, 0.4, 0.1)],
    [Report(1, 0.1, 0.2), Report(2, 0.2, 0.3)],
    [Report(1, 0.3, 0.8)],
]


@pytest.fixture
def best(shell, tmp_path, monkeypatch):
    """Gives the uuid of a trial's checkpoint at a batch."""
    monkeypatch.chdir(tmp_path)
    state = load(write_experiment(shell.home, TRIALS))
    return {
        (trial.id, one.steps_completed): one.uuid
        for trial in state.trials.values()
        for one in trial.progress.checkpoints
    }


def test_the_best_checkpoints_are_one_of_each_trial(shell, best):
    rows = json.loads(shell("det", "e", "lc", "1", "--best", "2", "--json").out)
    assert [row["uuid"] for row in rows] == [best[2, 1], best[3, 1]]
    assert len(json.loads(shell("det", "e", "lc", "1", "--json").out)) == 5
    lines = shell("det", "e", "lc", "1", "--best", "9", "--csv").out.splitlines()
    assert [line.split(",")[0] for line in lines] == ["uuid", best[2, 1], best[3, 1], best[1, 2]]


def test_an_experiments_best_checkpoints_are_copied(shell, best):
    out = shell("det", "e", "download", "1", "--top-n", "2", "-o", "models").out
    assert out.splitlines() == [f"models/{best[2, 1]}", f"models/{best[3, 1]}"]
    assert (Path("models", best[3, 1], "weights")).read_bytes() == b"123"


def test_another_metric_and_direction_choose_others(shell, best):
    words = ("--sort-by", "accuracy", "--smaller-is-better", "false")
    assert shell("det", "e", "download", "1", *words).out == f"checkpoints/{best[1, 1]}\n"
    missing = shell("det", "e", "download", "1", "--sort-by", "f1")
    assert "no checkpoint with a value for f1" in missing.err


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ((), (1, 2)),
        (("--latest",), (1, 2)),
        (("--best",), (1, 2)),
        (("--best", "--sort-by", "accuracy", "--smaller-is-better", "false"), (1, 1)),
    ],
)
def test_a_trials_newest_or_best_checkpoint_is_copied(shell, best, words, key):
    assert shell("det", "t", "download", "1/1", *words).out == f"checkpoints/{best[key]}\n"


def test_a_trials_checkpoint_is_named_by_the_beginning_of_its_uuid(shell, best):
    assert best[2, 2] in shell("det", "t", "download", "1/2", "--uuid", best[2, 2][:9]).out
    assert shell("det", "t", "download", "1/1", "--uuid", best[2, 2]).code == 2
    assert shell("det", "t", "download", "1/1", "--uuid", "").code == 2
    assert shell("det", "t", "download", "1/1", "--uuid", "a", "--best").code == 2
    assert shell("det", "t", "download", "1/1", "--sort-by", "loss").code == 2


def copy_out(process):
    target = next(Path(mount.source) for mount in process.spec.mounts)
    (target / "model_def.py").write_text("class Tiny(Base): ...\n")
    return Exit(0)


def test_the_code_is_copied_out_of_the_image(shell, best):
    shell.engine.program = copy_out
    shell.engine.add_image("detbuild:" + "b" * 64)
    assert shell("det", "e", "download-model-def", "1").out == "experiment_1_model_def\n"
    assert Path("experiment_1_model_def", "model_def.py").read_text() == "class Tiny(Base): ...\n"
    assert not shell.engine.containers
    assert "already exists" in shell("det", "e", "download-model-def", "1").err


def test_code_that_cannot_be_had_is_an_error_and_leaves_nothing(shell, best):
    assert "the image of experiment 1 was removed" in shell("det", "e", "download-model-def", "1").err
    shell.engine.program = lambda _process: Exit(1, output=("no python3",))
    shell.engine.add_image("detbuild:" + "b" * 64)
    assert "no python3" in shell("det", "e", "download-model-def", "1", "-o", "code").err
    write_experiment(shell.home, local=True)
    assert "not in an image" in shell("det", "e", "download-model-def", "2").err
    assert list(Path().glob("*code*")) + list(Path().glob(".*code*")) == []
    assert not shell.engine.containers
