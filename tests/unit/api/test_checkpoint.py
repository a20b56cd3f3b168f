from __future__ import annotations

import pytest

from detbuild.errors import EngineError
from tests.experiments import Report, write_experiment


@pytest.fixture
def checkpoint(client):
    write_experiment(client.path, [[Report(3, 0.5)]])
    (found,) = client.experiment(1).checkpoints()
    return found


def test_a_checkpoint_knows_its_files_its_metrics_and_its_time(checkpoint):
    assert checkpoint.contents()["weights"] == 3
    assert checkpoint.metrics == {"loss": 0.5, "accuracy": 0.5}
    assert checkpoint.reported > 0


def test_a_download_is_a_verified_copy(checkpoint, tmp_path):
    checkpoint.download(tmp_path / "copy")
    assert (tmp_path / "copy" / "weights").read_bytes() == b"123"


def test_damage_is_found_and_raised(checkpoint):
    assert checkpoint.damage() == []
    checkpoint.raise_damage([])
    (checkpoint.found.directory / "weights").write_bytes(b"124")
    with pytest.raises(EngineError, match="is damaged"):
        checkpoint.raise_damage(checkpoint.damage())


def test_metadata_are_changed_next_to_the_stored_ones(client, checkpoint):
    before = checkpoint.metadata()
    changed = checkpoint.change_metadata(lambda found: {**found, "note": "good"})
    assert changed == {**before, "note": "good"}
    assert client.checkpoint(checkpoint.uuid).metadata() == changed


def test_its_document_names_its_place(checkpoint):
    document = checkpoint.document()
    assert (document["uuid"], document["trial_id"], document["state"]) == (checkpoint.uuid, 1, "COMPLETED")
    assert document["directory"].endswith(checkpoint.uuid)
