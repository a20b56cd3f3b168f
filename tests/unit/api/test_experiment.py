from __future__ import annotations

import pytest

from detbuild.errors import ConfigError
from detbuild.events import ExperimentEnded
from detbuild.store import journal
from detbuild.store.state import State
from tests.experiments import Report, uuids, write_experiment

TWO = [[Report(1, 0.5), Report(2, 0.4)], [Report(1, 0.1), Report(2, 0.3)]]


@pytest.fixture
def started(monkeypatch):
    """IDs of experiments whose controllers were started."""
    ids = []
    monkeypatch.setattr(
        "detbuild.controller.requests.start_detached", lambda folder, held: ids.append(folder.id)
    )
    return ids


def requests(folder):
    return [request.verb for request in folder.inbox().after(0)]


@pytest.mark.parametrize("verb", ["pause", "cancel", "kill"])
def test_a_stop_verb_is_requested_and_a_controller_started(client, started, verb):
    folder = write_experiment(client.path, state=None)
    assert getattr(client.experiment(1), verb)().state == State.RUNNING
    assert (requests(folder), started) == ([verb], [1])


def test_a_paused_experiment_is_activated(client, started):
    folder = write_experiment(client.path, state=None)
    folder.request("pause")
    folder.record(journal.RequestApplied(number=1, verb="pause"))
    folder.record(journal.Paused())
    assert client.experiment(1).needs_activation()
    client.experiment(1).activate()
    assert (requests(folder), started) == (["pause", "activate"], [1])
    assert not client.experiment(1).needs_activation()


def test_an_ended_experiment_is_not_stopped_again(client, started):
    folder = write_experiment(client.path)
    assert client.experiment(1).kill().over
    assert (requests(folder), started) == ([], [])


def test_one_trial_is_killed_and_its_state_before_returned(client, started):
    write_experiment(client.path, TWO, state=None)
    assert client.experiment(1).kill_trial(2).state == State.RUNNING
    with pytest.raises(ConfigError, match="has no trial 3"):
        client.experiment(1).kill_trial(3)


def test_an_experiment_without_work_left_is_not_resumed(client, started):
    write_experiment(client.path)
    assert not client.experiment(1).resume()
    write_experiment(client.path, state=None)
    assert client.experiment(2).resume()
    assert started == [2]


def test_waiting_and_following_return_the_state_at_the_end(client, events):
    write_experiment(client.path)
    assert client.experiment(1).wait().state == State.COMPLETED
    assert client.experiment(1).follow(events.append).state == State.COMPLETED
    assert isinstance(events[-1], ExperimentEnded)


def test_what_runs_cannot_be_continued(client):
    write_experiment(client.path, state=None)
    with pytest.raises(ConfigError, match="must be paused or have ended"):
        client.experiment(1).continue_()


def test_only_a_local_experiment_at_rest_continues_in_the_foreground(client):
    write_experiment(client.path, local=True)
    write_experiment(client.path)
    local, other = client.experiments([1, 2])
    assert (local.is_idle_here(ended=True), local.is_idle_here(ended=False)) == (True, False)
    assert not other.is_idle_here(ended=True)


def test_attributes_are_changed_and_read_back(client):
    write_experiment(client.path)
    experiment = client.experiment(1)
    experiment.change(name="renamed", priority=7)
    assert (experiment.header().name, experiment.attributes().priority) == ("renamed", 7)
    with pytest.raises(ConfigError, match="priority must be between"):
        experiment.change(priority=100)


def test_labels_are_added_and_removed(client):
    write_experiment(client.path)
    experiment = client.experiment(1)
    experiment.add_label("second")
    experiment.remove_label("first")
    assert experiment.header().labels == ("second",)
    with pytest.raises(ConfigError, match="has no label first"):
        experiment.remove_label("first")


def test_the_best_checkpoint_of_each_trial_comes_first(client):
    write_experiment(client.path, TWO)
    experiment = client.experiment(1)
    found = [(one.found.trial_id, one.metrics["loss"]) for one in experiment.best_checkpoints()]
    assert found == [(2, 0.1), (1, 0.4)]
    assert experiment.best_checkpoint() == experiment.best_checkpoints()[0]
    assert len(experiment.checkpoints()) == 4


def test_a_new_retention_policy_deletes_at_once_after_the_end(client):
    folder = write_experiment(client.path, TWO)
    deleted = client.experiment(1).set_retention(
        save_experiment_best=1, save_trial_best=0, save_trial_latest=0
    )
    assert len(deleted) == 3
    assert len(uuids(folder)) == 1


def test_a_dry_run_of_the_retention_deletes_nothing(client):
    folder = write_experiment(client.path, TWO)
    found = client.experiment(1).collect(
        dry_run=True, save_experiment_best=0, save_trial_best=0, save_trial_latest=1
    )
    assert (len(found.kept), len(found.garbage), len(uuids(folder))) == (2, 2, 4)


def test_deleting_removes_the_folder(client):
    folder = write_experiment(client.path, local=True)
    client.experiment(1).delete()
    assert not folder.path.exists()
    running = write_experiment(client.path, state=None)
    with pytest.raises(ConfigError, match="has not ended"):
        client.experiment(running.id).delete()


def test_limits_are_text_and_a_local_run_has_none(client):
    write_experiment(client.path, config={"resources": {"memory": 2 << 30, "cpus": 1.5}, "environment": {}})
    write_experiment(client.path, local=True)
    limits = client.experiment(1).limits()
    assert ("2 GiB" in limits.memory, limits.read_only_root) == (True, False)
    assert client.experiment(2).limits() is None
