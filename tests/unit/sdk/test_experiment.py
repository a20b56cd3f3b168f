"""Experiments from Python: what they tell, and what changes them."""

from __future__ import annotations

import threading

import pytest

from detbuild.errors import ConfigError
from detbuild.store import journal
from determined.common.api import errors
from determined.experimental import client
from determined.experimental.client import (
    ExperimentState,
)
from tests.experiments import write_experiment
from tests.fakes import FakeEngine


def test_an_experiment_has_the_attributes_that_determineds_has(search):
    experiment = client.get_experiment(1)
    assert (experiment.id, experiment.name, experiment.state) == (1, "mnist", ExperimentState.COMPLETED)
    assert (experiment.labels, experiment.description, experiment.notes) == ({"first"}, "as submitted", "")
    assert experiment.config["max_restarts"] == 5
    assert not experiment.archived


def test_attributes_are_cached_until_they_are_asked_for_again(home):
    folder = write_experiment(home.path, state=None)
    experiment = client.get_experiment(1)
    folder.record(journal.ExperimentFinished(state="ERROR"))
    assert experiment.state is ExperimentState.RUNNING
    experiment.reload()
    assert experiment.state is ExperimentState.ERROR


def test_waiting_returns_the_state_once_it_has_ended(search):
    assert client.get_experiment(1).wait(interval=0.01) is ExperimentState.COMPLETED


def paused(home):
    folder = write_experiment(home.path, state=None)
    folder.request("pause")
    folder.record(journal.RequestApplied(number=1, verb="pause"))
    folder.record(journal.RunFinished(trial_id=1, run=0, outcome="preempted", asked="pause", retry=True))
    folder.record(journal.Paused())
    return folder


def test_waiting_for_what_is_paused_is_an_error(home):
    paused(home)
    with pytest.raises(ValueError, match="experiment 1 is paused"):
        client.get_experiment(1).wait()


@pytest.mark.parametrize("verb", ["activate", "kill"])
def test_what_was_just_asked_to_go_on_or_to_end_is_waited_for(home, monkeypatch, verb):
    folder = paused(home)
    monkeypatch.setattr("detbuild.controller.requests.start_detached", lambda found, _: None)
    experiment = client.get_experiment(1)
    getattr(experiment, verb)()
    looks = []

    def looked(_):
        if threading.current_thread() is not threading.main_thread():
            return
        looks.append(experiment.state)
        folder.record(journal.ExperimentFinished(state="CANCELED"))

    monkeypatch.setattr("time.sleep", looked)
    assert experiment.wait() is ExperimentState.CANCELED
    assert looks == [ExperimentState.PAUSED]


def test_deleting_what_runs_says_so_and_not_that_it_is_not_there(home):
    write_experiment(home.path, state=None)
    with pytest.raises(ConfigError, match="experiment 1 has not ended") as refused:
        client.get_experiment(1).delete()
    assert not isinstance(refused.value, errors.NotFoundException)


def test_what_runs_is_not_archived(home):
    write_experiment(home.path, state=None)
    experiment = client.get_experiment(1)
    with pytest.raises(ConfigError, match="experiment 1 has not ended"):
        experiment.archive()
    assert not experiment.archived


def test_waiting_starts_a_controller_where_there_is_none(home, monkeypatch):
    folder = write_experiment(home.path, state=None)
    monkeypatch.setattr("detbuild.controller.requests._PAUSE", 0.0)
    monkeypatch.setattr(
        "detbuild.controller.requests.start_detached",
        lambda found, _: found.record(journal.ExperimentFinished(state="COMPLETED")),
    )
    assert client.get_experiment(1).wait(interval=0.01) is ExperimentState.COMPLETED
    assert folder.journal()[-1].fact == journal.ExperimentFinished(state="COMPLETED")


def test_a_controller_that_does_not_stay_alive_ends_the_waiting(home, monkeypatch):
    write_experiment(home.path, state=None)
    started = []
    monkeypatch.setattr("detbuild.controller.requests._PAUSE", 0.0)
    monkeypatch.setattr("detbuild.controller.requests.start_detached", lambda found, _: started.append(found))
    with pytest.raises(Exception, match="the controller of experiment 1 keeps dying"):
        client.get_experiment(1).wait(interval=0.01)
    assert len(started) == 3


def test_the_first_trial_is_waited_for(home):
    write_experiment(home.path, [[], []], state=None)
    assert client.get_experiment(1).await_first_trial(interval=0.01).id == "1/1"
    write_experiment(home.path, [])
    with pytest.raises(ValueError, match="experiment 2 has ended without a trial"):
        client.get_experiment(2).await_first_trial()


def test_what_is_set_is_kept_and_seen_by_everybody(search):
    experiment = client.get_experiment(1)
    experiment.set_name("renamed")
    experiment.set_description("about")
    experiment.set_notes("mine")
    experiment.add_label("new")
    experiment.remove_label("first")
    experiment.archive()
    for seen in (experiment, client.get_experiment(1)):
        assert (seen.name, seen.description, seen.notes) == ("renamed", "about", "mine")
        assert (seen.labels, seen.archived) == ({"new"}, True)
    experiment.set_labels(["a", "b"])
    experiment.unarchive()
    assert (client.get_experiment(1).labels, client.get_experiment(1).archived) == ({"a", "b"}, False)


def test_there_are_no_projects_to_move_to(search, caplog):
    caplog.set_level("INFO", logger="determined.experimental")
    client.get_experiment(1).move_to_project("workspace", "project")
    assert "move_to_project is ignored: there are no projects here" in caplog.text


def test_an_experiment_is_deleted_with_its_checkpoints(search, home, monkeypatch):
    monkeypatch.setattr("detbuild.sdk.host.connect", FakeEngine)
    client.get_experiment(1).delete()
    with pytest.raises(errors.NotFoundException):
        client.get_experiment(1)
    assert client.list_experiments() == []


@pytest.mark.parametrize("verb", ["cancel", "kill"])
def test_what_is_asked_of_a_running_experiment_reaches_its_controller(home, monkeypatch, verb):
    monkeypatch.setattr("detbuild.controller.requests.start_detached", lambda found, _: None)
    folder = write_experiment(home.path, state=None)
    getattr(client.get_experiment(1), verb)()
    client.get_trial("1/1").kill()
    asked = [(request.verb, request.trial_id) for request in folder.inbox().after(0)]
    assert asked == [(verb, None), ("kill", 1)]
