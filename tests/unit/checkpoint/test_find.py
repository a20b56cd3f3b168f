from __future__ import annotations

import shutil

import pytest

from detbuild.checkpoint import find
from detbuild.checkpoint.find import best_first, best_of_trials, checkpoints_of, goal_of
from detbuild.store.home import Home
from tests.experiments import Report, write_experiment

NAN = float("nan")


@pytest.fixture
def folder(tmp_path):
    trials = [[Report(1, 0.5, 0.1), Report(2, NAN, 0.9)], [Report(1, 0.5, 0.2), Report(2, 0.75, 0.3)]]
    return write_experiment(tmp_path / "home", trials)


def named(found):
    return [(one.trial_id, one.checkpoint.steps_completed) for one in found]


def test_the_best_come_first_and_those_without_a_number_not_at_all(folder):
    assert named(best_first(checkpoints_of(folder), goal_of(folder.header()))) == [(1, 1), (2, 1), (2, 2)]


def test_another_metric_has_its_own_direction(folder):
    goal = goal_of(folder.header(), "accuracy", smaller_is_better=False)
    assert named(best_first(checkpoints_of(folder), goal)) == [(1, 2), (2, 2), (2, 1), (1, 1)]
    assert goal_of(folder.header(), "accuracy").smaller_is_better
    assert goal_of(folder.header(), None, smaller_is_better=False).smaller_is_better


def test_each_trial_has_one_best(folder):
    assert named(best_of_trials(checkpoints_of(folder), goal_of(folder.header()))) == [(1, 1), (2, 1)]


def test_a_checkpoint_that_was_deleted_is_not_the_best(folder):
    first = best_first(checkpoints_of(folder), goal_of(folder.header()))[0]
    first.directory.rename(first.directory.with_name("away"))
    assert named(best_of_trials(checkpoints_of(folder), goal_of(folder.header()))) == [(2, 1)]


def test_an_experiment_that_is_deleted_during_a_search_is_passed_over(tmp_path, monkeypatch):
    kept, gone = write_experiment(tmp_path), write_experiment(tmp_path)
    (wanted,) = checkpoints_of(kept)

    def deleting(folder, budget):
        if folder.id == gone.id:
            shutil.rmtree(folder.path)
        return checkpoints_of(folder, budget)

    monkeypatch.setattr(find, "checkpoints_of", deleting)
    unreadable = []
    found = list(find._all(Home.open(tmp_path), unreadable, first=None))
    assert [(one.experiment_id, one.checkpoint) for one in found] == [(1, wanted.checkpoint)]
    assert (unreadable, gone.exists) == ([], False)
