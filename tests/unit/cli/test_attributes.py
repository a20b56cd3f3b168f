from __future__ import annotations

import json

import pytest

from detbuild.store.annotations import Attributes, read_attributes
from tests.experiments import write_experiment


@pytest.fixture
def folder(shell):
    return write_experiment(shell.home)


def listed(shell, *words):
    return [row["id"] for row in json.loads(shell("detbuild", "list", "--json", *words).out)]


def test_archived_experiments_are_hidden_until_all_are_asked_for(shell, folder):
    write_experiment(shell.home)
    assert shell("detbuild", "archive", "1").code == 0
    assert (listed(shell), listed(shell, "--all")) == ([2], [2, 1])
    shell("det", "e", "unarchive", "1")
    assert listed(shell) == [2, 1]


def test_what_runs_is_not_hidden(shell):
    write_experiment(shell.home)
    write_experiment(shell.home, state=None)
    outcome = shell("det", "e", "archive", "1", "2")
    assert (outcome.code, listed(shell)) == (2, [2, 1])
    assert "experiment 2 has not ended: it is running" in outcome.err


def test_a_label_that_is_not_there_is_not_removed(shell, folder):
    shell("det", "e", "label", "add", "1", "hot")
    outcome = shell("det", "e", "label", "remove", "1", "cold")
    assert (outcome.code, outcome.err.splitlines()[0]) == (2, "error: experiment 1 has no label cold")
    assert "hot" in outcome.err
    assert shell("det", "e", "label", "remove", "1", "hot").code == 0


def test_several_experiments_are_named_in_any_way(shell):
    for _ in range(5):
        write_experiment(shell.home)
    shell("det", "e", "archive", "1,2", "4-5")
    assert listed(shell) == [3]
    assert "is not an experiment ID" in shell("detbuild", "archive", "x").err
    assert "'5-3' is reversed; expected 3-5" in shell("detbuild", "describe", "5-3").err


def test_nothing_is_archived_when_one_of_the_experiments_is_not_there(shell, folder):
    outcome = shell("detbuild", "archive", "1", "9")
    assert (outcome.code, listed(shell)) == (2, [1])
    assert "there is no experiment 9" in outcome.err


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        (("name", "1", "other"), Attributes(name="other")),
        (("description", "1", "about"), Attributes(description="about")),
        (("notes", "1", "note"), Attributes(notes="note")),
        (("max-slots", "1", "4"), Attributes(max_slots=4)),
        (("max-slots", "1", "none"), Attributes(max_slots=0)),
        (("weight", "1", "2.5"), Attributes(weight=2.5)),
        (("priority", "1", "9"), Attributes(priority=9)),
        (
            (
                *("gc-policy", "1", "--save-experiment-best", "3", "--save-trial-best", "0"),
                *("--save-trial-latest", "2", "--yes"),
            ),
            Attributes(save_experiment_best=3, save_trial_best=0, save_trial_latest=2),
        ),
    ],
)
def test_each_attribute_is_set_by_determineds_words_and_ours(shell, folder, words, changed):
    for program in (("detbuild",), ("det", "experiment")):
        (folder.path / "attributes.json").unlink(missing_ok=True)
        assert shell(*program, "set", *words).code == 0
        assert read_attributes(folder.path) == changed


@pytest.mark.parametrize(
    "words",
    [("max-slots", "1", "many"), ("max-slots", "1", "0"), ("priority", "1", "0"), ("weight", "1", "x")],
)
def test_values_that_make_no_sense_are_usage_errors(shell, folder, words):
    assert shell("detbuild", "set", *words).code == 2
    assert read_attributes(folder.path) == Attributes()


def test_a_policy_that_removes_checkpoints_is_asked_for_twice(shell, folder):
    words = ("--save-experiment-best", "0", "--save-trial-best", "0", "--save-trial-latest", "0")
    outcome = shell("detbuild", "set", "gc-policy", "1", *words)
    assert outcome.code == 2
    assert "add --yes to permanently delete" in outcome.err


def test_labels_come_and_go(shell, folder):
    shell("det", "e", "label", "add", "1", "good")
    shell("detbuild", "label", "add", "1", "good")
    (row,) = json.loads(shell("detbuild", "list", "--json").out)
    assert row["labels"] == ["first", "good"]
    shell("det", "e", "label", "remove", "1", "first")
    assert json.loads(shell("detbuild", "describe", "1", "--json").out)["labels"] == ["good"]


def test_what_was_set_shows_wherever_an_experiment_is_shown(shell, folder):
    shell("detbuild", "list")  # the index now holds the submitted name
    shell("detbuild", "set", "name", "1", "renamed")
    shell("detbuild", "set", "description", "1", "about")
    shell("detbuild", "set", "notes", "1", "mine")
    assert "renamed" in shell("detbuild", "list").out
    assert shell("detbuild", "describe", "1").out.startswith("experiment 1  renamed")
    document = json.loads(shell("detbuild", "describe", "1", "--json").out)
    assert [document[key] for key in ("name", "description", "notes")] == ["renamed", "about", "mine"]
