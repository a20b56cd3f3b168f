from __future__ import annotations

import json

from detbuild.controller.lease import lease
from detbuild.store.home import mark_deleting
from tests.experiments import write_experiment


def test_deleting_is_asked_for_twice(shell):
    write_experiment(shell.home)
    outcome = shell("detbuild", "delete", "1")
    assert (outcome.code, shell("detbuild", "list", "-q").out) == (2, "1\n")
    assert "add --yes to permanently delete experiment 1 and all checkpoints" in outcome.err


def test_deleted_experiments_are_gone_from_the_list(shell):
    for _ in range(3):
        write_experiment(shell.home)
    assert shell("det", "experiment", "delete", "1,3", "--yes").code == 0
    assert shell("detbuild", "list", "-q").out == "2\n"
    assert shell("detbuild", "describe", "1").code == 2


def test_nothing_is_deleted_when_one_of_them_is_not_there(shell):
    write_experiment(shell.home)
    assert shell("detbuild", "delete", "1", "7", "--yes").code == 2
    assert shell("detbuild", "list", "-q").out == "1\n"


def test_one_that_runs_is_refused_with_what_to_do(shell):
    write_experiment(shell.home, state=None)
    outcome = shell("detbuild", "delete", "1", "--yes")
    assert outcome.code == 2
    assert "run `detbuild kill 1` and `detbuild wait 1`, then delete it" in outcome.err


def test_one_that_runs_is_refused_in_the_same_words_while_its_controller_holds_it(shell):
    folder = write_experiment(shell.home, state=None)
    with lease(folder.lock_file):
        assert "experiment 1 has not ended" in shell("detbuild", "delete", "1", "--yes").err


def test_a_listing_finishes_what_a_crash_left(shell):
    mark_deleting(write_experiment(shell.home))
    assert shell("detbuild", "list", "--json").out == "[]\n"
    assert not (shell.home / "experiments" / "1").exists()


def test_one_that_cannot_be_finished_is_listed_as_such(shell, monkeypatch):
    mark_deleting(write_experiment(shell.home))

    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("shutil.rmtree", refuse)
    monkeypatch.setattr("determined._untrusted.UntrustedDir.remove_tree", refuse)
    outcome = shell("detbuild", "list", "--json")
    assert [row["state"] for row in json.loads(outcome.out)] == ["DELETING"]
    assert "could not finish a deletion" in outcome.err
