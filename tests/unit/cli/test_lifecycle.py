from __future__ import annotations

import pytest

from detbuild.store import journal
from detbuild.store.home import Home

CREATE = ("detbuild", "create", "const.yaml", ".")


@pytest.fixture(autouse=True)
def _no_controller(shell, monkeypatch: pytest.MonkeyPatch) -> None:  # after what `shell` sets
    """What is asked for stays asked for."""
    monkeypatch.setattr("detbuild.controller.attend.start_detached", lambda folder: None)


def asked(shell) -> list[tuple[str, int | None]]:
    requests = Home.open(shell.home).folder(1).inbox().after(0)
    return [(request.verb, request.trial_id) for request in requests]


def test_an_experiment_is_paused_and_activated(shell):
    shell.experiment(finished=None)
    outcome = shell("detbuild", "pause", "1")
    assert (outcome.code, outcome.err) == (0, "asked experiment 1 to pause; detbuild activate 1\n")
    outcome = shell("det", "e", "activate", "1")
    assert (outcome.code, outcome.err) == (0, "experiment 1 goes on; detbuild logs 1 -f\n")
    assert asked(shell) == [("pause", None), ("activate", None)]


def test_what_has_ended_cannot_rest(shell):
    shell.experiment()
    assert shell("detbuild", "pause", "1").err == "experiment 1 had ended before: COMPLETED\n"
    assert shell("det", "e", "unpause", "1").err == (
        "experiment 1 has ended: COMPLETED; detbuild continue 1\n"
    )
    assert asked(shell) == []


def test_an_experiment_that_is_completed_goes_on_when_it_is_to_train_longer(shell, project):
    shell(*CREATE, "-f")
    assert "there is nothing to continue" in shell("detbuild", "continue", "1").err
    outcome = shell("det", "e", "continue", "1", "--config", "searcher.max_length.batches=900")
    assert (outcome.code, outcome.err) == (0, "experiment 1 goes on; detbuild logs 1 -f\n")
    assert asked(shell) == [("continue", None)]


def test_one_trial_is_killed_alone(shell):
    shell.experiment(finished=None)
    outcome = shell("det", "trial", "kill", "1/1")
    assert (outcome.code, outcome.err) == (0, "asked trial 1/1 to end; the others go on\n")
    assert asked(shell) == [("kill", 1)]
    assert "has no trial 2" in shell("det", "trial", "kill", "1/2").err


def test_a_trial_that_has_ended_is_not_killed(shell):
    shell.experiment(finished=None)
    folder = Home.open(shell.home).folder(1)
    folder.record(journal.RunFinished(trial_id=1, run=0, outcome="completed"))
    folder.record(journal.TrialFinished(trial_id=1, state="COMPLETED"))
    assert shell("det", "trial", "kill", "1/1").err == "trial 1/1 had ended: COMPLETED\n"
    assert asked(shell) == []
