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


def test_several_experiments_are_shown_side_by_side_and_trials_named_in_determineds_way(shell, tmp_path):
    for _ in range(2):
        experiment(shell.home, 2)
    logs = tmp_path / "logs"
    for words, names in (
        (("1", "2"), ["exp-1-trial-1", "exp-1-trial-2", "exp-2-trial-1", "exp-2-trial-2"]),
        (("1-2", "-t", "2/1"), ["exp-1-trial-1", "exp-1-trial-2", "exp-2-trial-1"]),
        (("-t", "2/2"), ["exp-2-trial-2"]),
    ):
        outcome = shell("det", "tensorboard", "start", *words, "--no-browser", "--export", str(logs))
        assert (outcome.code, outcome.out.split()) == (0, [str(logs / name) for name in names])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "missing argument 'ID...'"),
        (("1", "2", "-t", "x"), "'x' is not a trial"),
        (("3-1",), "is reversed"),
    ],
)
def test_what_names_no_experiment_is_refused(shell, words, message):
    outcome = shell("det", "tensorboard", "start", *words)
    assert outcome.code == 2
    assert message in outcome.err


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
    assert shell("det", "tensorboard", "start", "1", "--no-browser", "--port", "7007").code == 0
    assert started[1][3:4] == ["--logdir"]
    assert started[1][5:] == ["--port", "7007"]


@pytest.mark.parametrize(
    ("words", "places"),
    [
        (("1", "2/1"), ["exp-1-trial-1", "exp-1-trial-2", "exp-2-trial-1"]),
        (("2/2", "2/1", "2/2"), ["exp-2-trial-2", "exp-2-trial-1"]),
        (("2/2", "2"), ["exp-2-trial-1", "exp-2-trial-2"]),
        (("1", "-t", "2"), ["exp-1-trial-2"]),
    ],
)
def test_several_experiments_and_single_trials_may_be_named(shell, tmp_path, words, places):
    for _ in range(2):
        experiment(shell.home, 2)
    outcome = shell("det", "tensorboard", "start", *words, "--export", str(tmp_path / "logs"))
    assert [line.rpartition("/")[2] for line in outcome.out.splitlines()] == places


@pytest.mark.parametrize("words", [("--port", "1"), ("1", "2", "-t", "1"), ("1/1", "-t", "1")])
def test_what_is_not_clear_is_asked_back(shell, words):
    assert shell("detbuild", "tensorboard", *words).code == 2
