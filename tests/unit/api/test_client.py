from __future__ import annotations

import pytest

from detbuild.errors import ConfigError
from detbuild.store import journal
from detbuild.store.home import mark_deleting
from tests.experiments import Report, uuids, write_experiment


def test_an_experiment_that_does_not_exist_is_an_error(client):
    with pytest.raises(ConfigError, match="there is no experiment 7"):
        client.experiment(7)


def test_an_unknown_id_among_several_fails_before_anything_changes(client):
    write_experiment(client.path)
    with pytest.raises(ConfigError, match="there is no experiment 2"):
        client.experiments([1, 2])


def test_a_listing_has_the_newest_first_and_leaves_out_archived_ones(client):
    for name in ("first", "second", "third"):
        write_experiment(client.path, name=name)
    client.set_archived([client.experiment(2)], archived=True)
    assert [one.summary.name for one in client.listed(archived=False)] == ["third", "first"]
    assert [(one.summary.id, one.archived) for one in client.listed()] == [(3, False), (2, True), (1, False)]


def test_a_listing_shows_changes_since_the_submission(client):
    folder = write_experiment(client.path)
    client.experiment(1).change(name="renamed", labels=("a", "b"))
    mark_deleting(folder)
    (found,) = client.listed()
    assert (found.summary.name, found.summary.labels, found.summary.state) == (
        "renamed",
        ("a", "b"),
        "DELETING",
    )


def test_a_damaged_experiment_is_skipped_with_a_warning(client, events):
    write_experiment(client.path)
    folder = write_experiment(client.path)
    (folder.path / "attributes.json").write_text("{")
    assert [one.summary.id for one in client.listed()] == [1]
    assert events[0].message.startswith("experiment 2 is damaged and skipped")


def test_experiments_are_archived_all_or_none(client):
    write_experiment(client.path)
    write_experiment(client.path, state=None)
    with pytest.raises(ConfigError, match="experiment 2 has not ended"):
        client.set_archived(client.experiments([1, 2]), archived=True)
    assert not any(one.archived for one in client.listed())


def test_tasks_are_the_trials_that_have_not_ended(client):
    write_experiment(client.path, state=None)
    write_experiment(client.path)
    (found,) = client.tasks()
    assert (found["task"], found["state"], found["container"]) == ("1/1", "RUNNING", "c1ffee")


def test_a_checkpoint_is_found_by_a_prefix_of_its_uuid(client):
    (uuid,) = uuids(write_experiment(client.path))
    assert client.checkpoint(uuid[:8]).uuid == uuid


def test_checkpoints_are_deleted_by_prefix_and_named_whole(client):
    folder = write_experiment(client.path, [[Report(1, 0.5), Report(2, 0.4)]])
    first, second = uuids(folder)
    assert client.delete_checkpoints([first[:8]]) == [first]
    assert uuids(folder) == [second]


def test_an_imported_checkpoint_keeps_its_uuid(client, tmp_path):
    (uuid,) = uuids(folder := write_experiment(tmp_path / "other"))
    assert client.import_checkpoint(folder.checkpoints / uuid) == uuid


def test_deletions_that_a_crash_cut_short_are_finished(client, events):
    folder = write_experiment(client.path)
    mark_deleting(folder)
    client.finish_deletions()
    assert (folder.path.exists(), events) == (False, [])


def test_resuming_all_starts_a_controller_for_each_that_needs_one(client, events, monkeypatch):
    started = []
    monkeypatch.setattr(
        "detbuild.controller.requests.start_detached", lambda folder, held: started.append(folder.id)
    )
    write_experiment(client.path)
    write_experiment(client.path, state=None)
    assert client.resume(events.append) == (2,)
    assert (started, events) == ([2], [])


def test_a_damaged_journal_is_reported_when_an_experiment_is_read(client, events):
    folder = write_experiment(client.path)
    with folder.journal_file.open("ab") as file:
        file.write(b"{\n")
    folder.record(journal.ExperimentFinished(state="COMPLETED"))
    assert client.experiment(1).state().over
    assert "the journal of experiment 1 is damaged" in events[0].message
