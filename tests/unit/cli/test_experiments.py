from __future__ import annotations

import json

import pytest

from tests.unit.cli.shells import UUID


def test_an_empty_home_lists_nothing_and_says_how_to_begin(shell):
    outcome = shell("detbuild", "list")
    assert (outcome.code, outcome.out) == (0, "")
    assert "detbuild create CONFIG DIR" in outcome.err


def test_a_listing_shows_the_newest_first(shell):
    shell.experiment("first")
    shell.experiment("second", finished=None)
    lines = shell("detbuild", "list").out.splitlines()
    assert lines[0].split() == [
        "ID",
        "NAME",
        "STATE",
        "DONE",
        "TRIALS",
        "BATCHES",
        "BEST",
        "CHECKPOINTS",
        "CREATED",
    ]
    assert [line.split()[:9] for line in lines[1:]] == [
        ["2", "second", "running", "0", "%", "1", "10", "validation_loss=0.25", "1"],
        ["1", "first", "completed", "100", "%", "1", "10", "validation_loss=0.25", "1"],
    ]


def test_a_listing_for_programs_has_the_documented_keys(shell):
    folder = shell.experiment()
    (row,) = json.loads(shell("detbuild", "list", "--json").out)
    ended = row.pop("ended")
    assert ended > row["created"]
    assert row == {
        "id": 1,
        "name": "mnist",
        "state": "COMPLETED",
        "why": "",
        "metric": "validation_loss",
        "best": 0.25,
        "steps_completed": 10,
        "progress": 1.0,
        "trial_count": 1,
        "checkpoint_count": 1,
        "created": 1_700_000_000.0,
        "local": False,
        "test_mode": False,
        "labels": [],
        "archived": False,
        "folder": str(folder.path),
    }


def test_every_key_of_the_json_is_named_in_the_help(shell):
    shell.experiment()
    text = shell("detbuild", "list", "--help").out
    (row,) = json.loads(shell("detbuild", "list", "--json").out)
    assert [key for key in row if f'"{key}"' not in text] == []


def test_ids_alone_come_one_a_line(shell):
    shell.experiment()
    shell.experiment()
    assert shell("detbuild", "list", "-q").out == "2\n1\n"


def test_a_name_with_terminal_escapes_is_shown_and_not_obeyed(shell):
    shell.experiment("evil \x1b[2J\x1b]0;owned\x07 \u202egnp")
    for words in (("list",), ("describe", "1")):
        out = shell("detbuild", *words).out
        assert "evil \\x1b[2J\\x1b]0;owned\\x07 \\u202egnp" in out
        assert "\x1b" not in out


def test_describe_shows_state_metrics_checkpoints_and_folders(shell):
    folder = shell.experiment()
    out = shell("detbuild", "describe", "1").out
    for part in (
        "experiment 1  mnist",
        "state      completed",
        "best       validation_loss=0.25 accuracy=0.9 at batch 10",
        f"folder     {folder.path}",
        "hyperparameters  lr=0.001",
        f"checkpoint       {UUID}  batch 10  2.0 kB",
        f"run 0  completed  {folder.run(1, 0).path}",
    ):
        assert part in out


def test_describe_says_how_many_records_were_rejected(shell):
    folder = shell.experiment()
    assert "rejected" not in shell("detbuild", "describe", "1").out
    with folder.run(1, 0).events.open("ab") as events:
        events.write(b"garbage\n{}\n")
    assert "rejected         2 invalid records in events.jsonl" in shell("detbuild", "describe", "1").out


def test_describe_for_programs_nests_trials_checkpoints_and_runs(shell):
    shell.experiment()
    document = json.loads(shell("detbuild", "describe", "1", "--json").out)
    (trial,) = document["trials"]
    assert (document["id"], document["state"]) == (1, "COMPLETED")
    assert trial["hparams"] == {"lr": 0.001}
    assert trial["validations"] == [
        {"steps_completed": 10, "metrics": {"validation_loss": 0.25, "accuracy": 0.9}}
    ]
    assert [checkpoint["uuid"] for checkpoint in trial["checkpoints"]] == [UUID]
    assert [run["outcome"] for run in trial["runs"]] == ["completed"]


@pytest.mark.parametrize("words", [("describe", "7"), ("logs", "7"), ("checkpoint", "list", "7")])
def test_an_experiment_that_is_not_there_is_an_error(shell, words):
    outcome = shell("detbuild", *words)
    assert outcome.code == 2
    assert outcome.err == "error: there is no experiment 7\n  hint: see `detbuild list`\n"


def test_determineds_words_show_the_same(shell):
    shell.experiment()
    assert shell("det", "e", "list", "--json") == shell("detbuild", "list", "--json")
    assert shell("det", "experiment", "describe", "1") == shell("detbuild", "describe", "1")
    assert shell("det", "e", "lt", "1").out.splitlines()[1].split() == [
        "1/1",
        "completed",
        "10",
        "0",
        "lr=0.001",
    ]
    assert shell("det", "t", "describe", "1").out.startswith("trial 1  completed  batch 10  restarts 0\n")


def test_a_trial_is_named_by_its_experiment_and_number(shell):
    shell.experiment()
    assert shell("det", "t", "describe", "1/1").code == 0
    missing = shell("det", "t", "describe", "1/2")
    assert (missing.code, missing.err) == (
        2,
        "error: experiment 1 has no trial 2\n  hint: its trials: 1\n",
    )
    assert "e.g. 3/1" in shell("det", "t", "describe", "one").err
