"""Checkpoints from Python: order, metadata, download and deletion."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detbuild.errors import ConfigError
from determined.experimental import client
from determined.experimental.client import (
    CheckpointSortBy,
    CheckpointState,
    OrderBy,
)
from tests.experiments import Report, uuids, write_experiment


def batches(checkpoints):
    return [(one.trial_id[-1], one.steps_completed) for one in checkpoints]


def test_the_best_checkpoints_of_an_experiment_are_of_distinct_trials(search):
    experiment = client.get_experiment(1)
    assert batches(experiment.top_n_checkpoints(2)) == [("2", 1), ("3", 1)]
    assert batches([experiment.top_checkpoint()]) == [("2", 1)]
    assert batches([experiment.top_checkpoint("accuracy", smaller_is_better=False)]) == [("1", 1)]
    with pytest.raises(ValueError, match="no checkpoint with that metric"):
        experiment.top_checkpoint("f1", smaller_is_better=False)


def test_checkpoints_are_listed_best_first_or_as_asked_for(search):
    experiment = client.get_experiment(1)
    assert batches(experiment.list_checkpoints())[:3] == [("2", 1), ("2", 2), ("3", 1)]
    assert batches(experiment.list_checkpoints("accuracy", OrderBy.DESC, max_results=2)) == [
        ("1", 1),
        ("3", 1),
    ]
    by_batch = client.get_trial("1/1").list_checkpoints(CheckpointSortBy.BATCH_NUMBER, OrderBy.DESC)
    assert batches(by_batch) == [("1", 2), ("1", 1)]
    worst = experiment.list_checkpoints(CheckpointSortBy.SEARCHER_METRIC, OrderBy.DESC, max_results=1)
    assert batches(worst) == [("1", 1)]
    with pytest.raises(ValueError, match="go together"):
        experiment.list_checkpoints("accuracy")


def test_a_checkpoint_without_the_metric_comes_last(home):
    folder = write_experiment(home.path, [[Report(1, float("nan")), Report(2, 0.5)]])
    assert batches(client.get_trial("1/1").list_checkpoints()) == [("1", 2), ("1", 1)]
    assert len(uuids(folder)) == 2


def test_a_checkpoint_tells_where_it_is_from(search):
    checkpoint = client.get_checkpoint(client.get_experiment(1).top_checkpoint().uuid[:8])
    assert (checkpoint.state, checkpoint.trial_id) == (CheckpointState.COMPLETED, "1/2")
    assert checkpoint.resources["weights"] == 3
    assert checkpoint.metadata["framework"] == "torch-2"
    training = checkpoint.training
    assert (training.experiment_id, training.trial_id, training.hparams) == (1, "1/2", {"lr": 0.2})
    assert training.validation_metrics == {"avgMetrics": {"loss": 0.1, "accuracy": 0.2}}
    assert training.experiment_config["max_restarts"] == 5
    assert [one.group for one in checkpoint.get_metrics()] == ["training", "validation"]
    assert checkpoint.report_time is not None


def test_a_checkpoint_is_copied_where_determineds_would_be(search):
    checkpoint = client.get_trial("1/1").top_checkpoint()
    assert checkpoint.download() == f"checkpoints/{checkpoint.uuid}"
    assert Path("checkpoints", checkpoint.uuid, "weights").read_bytes() == b"123"
    assert checkpoint.download("elsewhere", mode="master") == "elsewhere"
    assert checkpoint.download("elsewhere") == "elsewhere"
    with pytest.raises(ValueError, match="carrier pigeon"):
        checkpoint.download("x", mode="carrier pigeon")


def test_a_checkpoint_that_is_gone_says_so(search):
    checkpoint = client.get_trial("1/1").top_checkpoint()
    (search.checkpoints / checkpoint.uuid).rename(search.checkpoints / "away")
    checkpoint.reload()
    assert checkpoint.state is CheckpointState.DELETED
    with pytest.raises(Exception, match="it is not on this host"):
        checkpoint.download()


def test_metadata_are_added_and_removed_beside_the_sealed_files(search):
    checkpoint = client.get_trial("1/1").top_checkpoint()
    checkpoint.add_metadata({"good": True, "n": 1})
    checkpoint.remove_metadata(["n", "framework", "absent"])
    again = client.get_checkpoint(checkpoint.uuid)
    assert again.metadata["good"] is True
    assert "framework" not in again.metadata
    again.write_metadata_file("metadata-now.json")
    assert json.loads(Path("metadata-now.json").read_text()) == dict(again.metadata)
    assert again.download() == f"checkpoints/{again.uuid}"  # it is whole: what was stored did not change


@pytest.mark.parametrize(
    ("metadata", "framework"),
    [
        ({"framework": "torch-2.6"}, "PYTORCH"),
        ({"framework": "tensorflow-2.15"}, "TENSORFLOW"),
        ({"torch_version": "1.4"}, "PYTORCH"),
        ({"tensorflow_version": "1.15"}, "TENSORFLOW"),
    ],
)
def test_what_wrote_a_checkpoint_is_read_from_its_metadata(metadata, framework):
    assert client.Checkpoint.get_type(metadata).name == framework


def test_metadata_that_name_no_framework_cannot_be_loaded(search):
    with pytest.raises(ValueError, match="neither a torch nor a tensorflow version"):
        client.Checkpoint.get_type({})
    path = client.get_trial("1/1").top_checkpoint().download()
    assert client.Checkpoint.parse_metadata(Path(path))["framework"] == "torch-2"


def test_a_checkpoint_is_deleted_as_a_whole_or_in_part(search):
    first, second = client.get_trial("1/1").list_checkpoints()
    first.delete()
    assert first.state is CheckpointState.DELETED
    assert first.uuid not in uuids(search)
    second.remove_files(["weights"])
    assert client.get_checkpoint(second.uuid).state is CheckpointState.PARTIALLY_DELETED
    assert not (search.checkpoints / second.uuid / "weights").exists()
    assert "weights" not in client.get_checkpoint(second.uuid).resources


def test_a_registered_checkpoint_is_not_deleted(search):
    checkpoint = client.get_experiment(1).top_checkpoint()
    client.create_model("net").register_version(checkpoint.uuid)
    with pytest.raises(ConfigError, match=checkpoint.uuid):
        checkpoint.delete()
    assert checkpoint.uuid in uuids(search)
