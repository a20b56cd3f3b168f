from __future__ import annotations

import os

import pytest

from detbuild.controller.start import controller_of
from detbuild.store import journal
from detbuild.store.experiment_dir import ExperimentFolder
from detbuild.store.home import Home

CREATE = ("detbuild", "create", "const.yaml", ".")


@pytest.fixture(autouse=True)
def _no_controller(shell, monkeypatch: pytest.MonkeyPatch) -> None:  # after what `shell` sets
    """What is asked for stays asked for."""
    monkeypatch.setattr("detbuild.controller.attend.start_detached", lambda folder, _: None)


def asked(shell) -> list[tuple[str, int | None]]:
    requests = Home.open(shell.home).folder(1).inbox().after(0)
    return [(request.verb, request.trial_id) for request in requests]


def test_an_experiment_is_paused_and_activated(shell):
    shell.experiment(finished=None)
    outcome = shell("detbuild", "pause", "1")
    assert (outcome.code, outcome.err) == (0, "experiment 1 stopping (pause): detbuild activate 1\n")
    outcome = shell("det", "e", "activate", "1")
    assert (outcome.code, outcome.err) == (0, "experiment 1 continues; detbuild logs 1 -f\n")
    assert asked(shell) == [("pause", None), ("activate", None)]


@pytest.mark.parametrize("verb", ["pause", "cancel", "kill"])
def test_a_verb_takes_several_experiments_and_asks_none_when_one_is_not_there(shell, verb):
    for _ in range(3):
        shell.experiment(finished=None)
    assert shell("detbuild", verb, "1", "2-9").code == 2
    assert asked(shell) == []
    assert shell("det", "e", verb, "1,3").code == 0
    assert asked_of_three(shell) == [[verb], [], [verb]]


def test_several_paused_experiments_are_activated(shell):
    for _ in range(3):
        shell.experiment(finished=None)
    shell("detbuild", "pause", "1-3")
    assert shell("detbuild", "activate", "1", "3").code == 0
    assert asked_of_three(shell) == [["pause", "activate"], ["pause"], ["pause", "activate"]]


def asked_of_three(shell) -> list[list[str]]:
    found = [Home.open(shell.home).folder(id_).inbox().after(0) for id_ in (1, 2, 3)]
    return [[request.verb for request in requests] for requests in found]


def test_what_has_ended_cannot_rest(shell):
    shell.experiment()
    for words in (("detbuild", "pause", "1"), ("det", "e", "unpause", "1")):
        outcome = shell(*words)
        assert (outcome.code, outcome.err.splitlines()) == (
            2,
            [
                "error: experiment 1 has ended: completed",
                "  hint: run `detbuild continue 1` to continue what was not completed",
            ],
        )
    assert asked(shell) == []


def test_an_experiment_that_is_completed_goes_on_when_it_is_to_train_longer(shell, project):
    shell(*CREATE, "-f")
    assert "there is nothing to continue" in shell("detbuild", "continue", "1").err
    outcome = shell("det", "e", "continue", "1", "--config", "searcher.max_length.batches=900")
    assert (outcome.code, outcome.err) == (0, "experiment 1 continues; detbuild logs 1 -f\n")
    assert asked(shell) == [("continue", None)]


def test_a_paused_experiment_is_said_to_be_paused(shell, project):
    shell(*CREATE, "--paused")
    assert shell("detbuild", "pause", "1").err == "experiment 1 paused: detbuild activate 1\n"


def test_changes_for_the_continuation_may_be_in_a_file_and_it_may_be_followed(
    shell, project, monkeypatch: pytest.MonkeyPatch
):
    shell(*CREATE, "-f")

    def control(folder: ExperimentFolder, held: int) -> None:
        controller_of(folder, shell.engine).run()

    monkeypatch.setattr("detbuild.controller.attend.start_detached", control)
    (project / "longer.yaml").write_text("searcher: {max_length: {batches: 900}}\n")
    outcome = shell("det", "e", "continue", "1", "--config-file", "longer.yaml", "-f")
    assert (outcome.code, outcome.out.splitlines()[0]) == (0, "experiment 1 continues")
    assert "experiment 1 completed" in outcome.out
    assert outcome.err.startswith("next:\n  detbuild describe 1\n")


def test_a_local_experiment_goes_on_here(shell, project):
    (project / "train.py").write_text("raise SystemExit(3)\n")
    shell.environ["PATH"] = os.environ["PATH"]
    local = ("entrypoint=[python3, train.py]", "max_restarts=0")
    create = (*CREATE, "--local", *(word for change in local for word in ("--config", change)))
    assert shell(*create).code == 6
    (project / "train.py").write_text("print('well')\n")
    outcome = shell("detbuild", "continue", "1")
    assert (outcome.code, outcome.out.splitlines()[0]) == (0, "experiment 1 continues")
    assert "[trial 1] well" in outcome.out
    assert "there is nothing to continue" in shell("detbuild", "continue", "1").err


def test_one_trial_is_killed_alone(shell):
    shell.experiment(finished=None)
    outcome = shell("det", "trial", "kill", "1/1")
    assert (outcome.code, outcome.err) == (0, "trial 1/1 stopping (kill); other trials keep running\n")
    assert asked(shell) == [("kill", 1)]
    assert "has no trial 2" in shell("det", "trial", "kill", "1/2").err


def test_a_trial_that_has_ended_is_not_killed(shell):
    shell.experiment(finished=None)
    folder = Home.open(shell.home).folder(1)
    folder.record(journal.RunFinished(trial_id=1, run=0, outcome="completed"))
    folder.record(journal.TrialFinished(trial_id=1, state="COMPLETED"))
    assert shell("det", "trial", "kill", "1/1").err == "trial 1/1 has already ended: completed\n"
    assert asked(shell) == []
