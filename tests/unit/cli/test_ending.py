"""Commands about an experiment that runs or is over: wait, cancel, kill, resume."""

from __future__ import annotations

import pytest

from tests.unit.cli.shells import train_until_told


@pytest.mark.parametrize(("state", "code"), [("COMPLETED", 0), ("ERROR", 6), ("CANCELED", 7)])
def test_waiting_gives_the_exit_code_of_the_experiment(shell, state, code):
    shell.experiment(state=state)
    outcome = shell("detbuild", "wait", "1")
    assert (outcome.code, outcome.out) == (code, f"experiment 1 {state}\n")


@pytest.mark.parametrize("verb", ["cancel", "kill"])
def test_an_experiment_that_runs_can_be_ended(shell, project, monkeypatch, verb):
    shell.engine.program = train_until_told
    monkeypatch.setattr(
        "detbuild.experiment.start_detached", lambda _folder: None
    )  # as if it had died at once
    shell("detbuild", "create", "const.yaml", ".")
    outcome = shell("det", "e", verb, "1")
    assert outcome.code == 0
    assert outcome.err == "asked experiment 1 to end; wait for it: detbuild wait 1\n"
    assert shell("detbuild", "wait", "1").code == 7
    assert shell.engine.containers == {}


def test_ending_what_has_ended_says_so(shell):
    shell.experiment()
    outcome = shell("detbuild", "kill", "1")
    assert (outcome.code, outcome.err) == (0, "experiment 1 had ended before: COMPLETED\n")


def test_resume_takes_up_what_lost_its_controller(shell, project, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("detbuild.experiment.start_detached", lambda _folder: None)
        shell("detbuild", "create", "const.yaml", ".")
    outcome = shell("detbuild", "resume")
    assert (outcome.code, outcome.out) == (0, "1\n")
    assert shell("detbuild", "wait", "1").out == "experiment 1 COMPLETED\n"


def test_resume_has_nothing_to_do_when_all_have_ended(shell):
    shell.experiment()
    outcome = shell("detbuild", "resume")
    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err.startswith("nothing to take up")


def test_killing_a_trial_kills_its_experiment(shell, project, monkeypatch):
    shell.engine.program = train_until_told
    monkeypatch.setattr("detbuild.experiment.start_detached", lambda _folder: None)
    shell("detbuild", "create", "const.yaml", ".")
    assert shell("det", "t", "kill", "1/1").code == 0
    assert shell("detbuild", "wait", "1").code == 7
