"""Commands about an experiment that runs or is over: wait, cancel, kill, resume."""

from __future__ import annotations

from dataclasses import replace

import pytest

from detbuild.store import journal
from detbuild.store.state import State, load
from tests.unit.cli.shells import train_until_told


def test_waiting_for_a_paused_experiment_prints_how_to_unpause_it(shell, monkeypatch):
    folder = shell.experiment(finished=None)
    folder.record(journal.RequestApplied(number=1, verb="pause"))
    folder.record(journal.Paused())
    monkeypatch.setattr(
        "detbuild.controller.attend.wait",
        lambda home, id_, emit: replace(load(folder), state=State.COMPLETED),
    )
    hint = "experiment 1 paused: detbuild activate 1\n"
    assert shell("detbuild", "wait", "1").err == hint
    monkeypatch.setattr("detbuild.cli.logs._over", lambda folder, trial_id: True)
    assert shell("detbuild", "logs", "1", "-f").err.startswith(hint)


@pytest.mark.parametrize(("state", "code"), [("COMPLETED", 0), ("ERROR", 6), ("CANCELED", 7)])
def test_waiting_gives_the_exit_code_of_the_experiment(shell, state, code):
    shell.experiment(state=state)
    outcome = shell("detbuild", "wait", "1")
    assert (outcome.code, outcome.out) == (code, f"experiment 1 {state.lower()}\n")


@pytest.mark.parametrize("verb", ["cancel", "kill"])
def test_an_experiment_that_runs_can_be_ended(shell, project, monkeypatch, verb):
    shell.engine.program = train_until_told
    monkeypatch.setattr(
        "detbuild.experiment.start_detached", lambda _folder, _held: None
    )  # as if it had died at once
    shell("detbuild", "create", "const.yaml", ".")
    outcome = shell("det", "e", verb, "1")
    assert outcome.code == 0
    assert outcome.err == f"experiment 1 stopping ({verb}): detbuild wait 1\n"
    assert shell("detbuild", "wait", "1").code == 7
    assert shell.engine.containers == {}


def test_ending_what_has_ended_says_so(shell):
    shell.experiment()
    outcome = shell("detbuild", "kill", "1")
    assert (outcome.code, outcome.err) == (0, "experiment 1 has already ended: completed\n")


def test_resume_takes_up_what_lost_its_controller(shell, project, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("detbuild.experiment.start_detached", lambda _folder, _held: None)
        shell("detbuild", "create", "const.yaml", ".")
    outcome = shell("detbuild", "resume")
    assert (outcome.code, outcome.out) == (0, "1\n")
    assert shell("detbuild", "wait", "1").out == "experiment 1 completed\n"


@pytest.mark.parametrize("words", [(), ("1",)], ids=["all", "one"])
def test_resume_tries_again_what_could_not_be_uploaded_or_removed(shell, monkeypatch, words):
    folder = shell.experiment()
    folder.record(journal.CheckpointsDeleted(uuids=("u",)))
    monkeypatch.setattr("detbuild.controller.attend.start_detached", lambda _folder, _held: None)
    assert shell("detbuild", "resume", *words).out == "1\n"
    folder.record(journal.CheckpointsRemoved(uuids=("u",)))
    assert shell("detbuild", "resume", *words).out == ""


def test_resume_takes_up_all_others_when_one_cannot_be_read(shell, monkeypatch):
    (shell.experiment().path / "experiment.json").write_text("{")
    shell.experiment(finished=None)
    taken = []
    monkeypatch.setattr(
        "detbuild.controller.attend.start_detached", lambda folder, _: taken.append(folder.id)
    )
    outcome = shell("detbuild", "resume")
    assert (outcome.code, taken) == (4, [2])
    assert "experiments/1/experiment.json" in outcome.err


@pytest.mark.parametrize("words", [(), ("1",)], ids=["all", "one"])
def test_resume_has_nothing_to_do_when_all_have_ended(shell, words):
    shell.experiment()
    outcome = shell("detbuild", "resume", *words)
    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err.startswith("nothing to resume")


def test_killing_a_trial_kills_its_experiment(shell, project, monkeypatch):
    shell.engine.program = train_until_told
    monkeypatch.setattr("detbuild.experiment.start_detached", lambda _folder, _held: None)
    shell("detbuild", "create", "const.yaml", ".")
    assert shell("det", "t", "kill", "1/1").code == 0
    assert shell("detbuild", "wait", "1").code == 7


def test_waiting_for_several_gives_the_worst_exit_code(shell):
    for state in ("COMPLETED", "CANCELED", "ERROR"):
        shell.experiment(state=state)
    outcome = shell("detbuild", "wait", "1-3")
    assert (outcome.code, outcome.out.splitlines()) == (
        6,
        ["experiment 1 completed", "experiment 2 canceled", "experiment 3 error"],
    )
    assert [shell("detbuild", "wait", "1", id_).code for id_ in ("2", "1")] == [7, 0]
