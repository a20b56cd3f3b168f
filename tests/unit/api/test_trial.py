from __future__ import annotations

import pytest

from detbuild.errors import ConfigError
from tests.experiments import Report, write_experiment

TRIALS = [[Report(1, 0.5), Report(2, 0.4)], [Report(1, 0.1), Report(2, 0.3)]]


@pytest.fixture
def trial(client):
    write_experiment(client.path, TRIALS)
    return client.trial(1, 2)


def test_a_trial_that_does_not_exist_is_an_error_that_names_the_others(client, trial):
    with pytest.raises(ConfigError, match="experiment 1 has no trial 3") as error:
        client.trial(1, 3)
    assert error.value.hint == "its trials: 1, 2"


def test_a_trial_is_the_same_read_alone_and_with_its_siblings(client, trial):
    assert trial.state == client.experiment(1).state().trials[2]


def test_its_measurements_are_those_of_its_runs(trial):
    found = [(one.group, one.steps_completed, one.metrics["loss"]) for one in trial.measurements()]
    assert found == [
        ("training", 1, 0.2),
        ("validation", 1, 0.1),
        ("training", 2, 0.6),
        ("validation", 2, 0.3),
    ]
    assert [one.steps_completed for one in trial.measurements("validation")] == [1, 2]
    assert trial.summary()["validation"]["loss"]["min"] == 0.1


def test_numbers_of_reports_are_rows(trial):
    assert [(group, row.steps) for group, row in trial.reports()][:2] == [("training", 1), ("validation", 1)]


def test_the_newest_and_the_best_checkpoint_differ(trial):
    assert trial.checkpoint().metrics["loss"] == 0.3
    assert trial.checkpoint(best=True).metrics["loss"] == 0.1
    best = trial.checkpoint(best=True)
    assert trial.checkpoint(best.uuid[:8]).uuid == best.uuid
    with pytest.raises(ConfigError, match="trial 1/2 has no such checkpoint"):
        trial.checkpoint("nothing")


def test_its_document_has_its_checkpoints_and_on_request_its_measurements(trial):
    document = trial.document(measurements=True)
    assert (len(document["checkpoints"]), len(document["measurements"])) == (2, 4)
    assert "measurements" not in trial.document()


def test_its_runs_have_folders(trial):
    assert trial.run_path(0).name == "2-0"
    assert trial.run_files(0).is_file("stdout.log")
