from __future__ import annotations

import subprocess

import pytest

from tests.synthetic import experiment

pytest.importorskip("tensorboard")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_chosen_trials_are_exported(shell, tmp_path):
    experiment(shell.home, 3)
    outcome = shell("detbuild", "tensorboard", "1", "--trial", "2", "--export", str(tmp_path / "logs"))
    assert (outcome.code, outcome.out) == (0, f"{tmp_path / 'logs' / 'exp-1-trial-2'}\n")


def test_a_trial_that_is_not_there_is_an_error(shell):
    experiment(shell.home, 1)
    outcome = shell("detbuild", "tensorboard", "1", "--trial", "9")
    assert (outcome.code, outcome.err.splitlines()[0]) == (2, "error: experiment 1 has no trial 9")


def test_arguments_after_two_dashes_are_tensorboards(shell, monkeypatch):
    experiment(shell.home, 1)
    started = []

    def run(command, *, check):
        started.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr("subprocess.run", run)
    assert shell("detbuild", "tensorboard", "1", "--", "--port", "7007").code == 0
    assert started[0][-2:] == ["--port", "7007"]
