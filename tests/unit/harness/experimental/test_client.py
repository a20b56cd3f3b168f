"""The client as its users call it, on experiments of this home."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from detbuild.errors import ConfigError
from detbuild.store import journal
from detbuild.store.home import Home
from determined.common.api import errors
from determined.experimental import Determined, ExperimentReference, TrialReference, client
from determined.experimental.client import (
    CheckpointSortBy,
    CheckpointState,
    ExperimentSortBy,
    ExperimentState,
    LogLevel,
    OrderBy,
    TrialSortBy,
    TrialState,
)
from tests.experiments import Report, uuids, write_experiment
from tests.fakes import FakeEngine

TRIALS = [
    [Report(1, 0.5, 0.9), Report(2, 0.4, 0.1)],
    [Report(1, 0.1, 0.2), Report(2, 0.2, 0.3)],
    [Report(1, 0.3, 0.8)],
]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DETBUILD_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return Home.open(tmp_path / "home")


@pytest.fixture
def search(home):
    return write_experiment(home.path, TRIALS, config={"description": "as submitted"})


# experiments


def test_an_experiment_has_the_attributes_that_determineds_has(search):
    experiment = client.get_experiment(1)
    assert (experiment.id, experiment.name, experiment.state) == (1, "mnist", ExperimentState.COMPLETED)
    assert (experiment.labels, experiment.description, experiment.notes) == ({"first"}, "as submitted", "")
    assert experiment.config["max_restarts"] == 5
    assert not experiment.archived


def test_every_way_to_an_experiment_leads_to_the_same(search):
    assert Determined(master="http://m", user="u").get_experiment(1).name == client.get_experiment(1).name
    assert ExperimentReference is client.Experiment
    assert TrialReference is client.Trial


@pytest.mark.parametrize(
    "call",
    [
        lambda: client.get_experiment(7),
        lambda: client.get_trial("7/1"),
        lambda: client.get_trial("1/9"),
        lambda: client.get_checkpoint("ffff"),
        lambda: client.get_model("none"),
        lambda: list(client.iter_trials_metrics(["1/9"])),
    ],
)
def test_what_is_not_there_is_determineds_error_and_ours_with_a_hint(search, call):
    with pytest.raises(errors.NotFoundException, match="hint: ") as caught:
        call()
    assert isinstance(caught.value, ConfigError)


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


def test_states_of_ours_have_the_nearest_name_of_determineds():
    assert ExperimentState("STATE_STOPPING_PAUSED") is ExperimentState.PAUSED
    assert TrialState("STATE_WAITING") is TrialState.ACTIVE
    assert TrialState("STATE_ODD") is TrialState.UNSPECIFIED


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


def test_experiments_are_listed_by_number_and_chosen_by_what_they_are(search, home):
    write_experiment(home.path, name="other", state="ERROR")
    client.get_experiment(1).archive()
    assert [e.id for e in client.list_experiments()] == [1, 2]
    assert [e.id for e in client.list_experiments(ExperimentSortBy.ID, OrderBy.DESC)] == [2, 1]
    assert [e.id for e in client.list_experiments(ExperimentSortBy.SEARCHER_METRIC_VAL)] == [1, 2]
    assert [e.id for e in client.list_experiments(states=[ExperimentState.ERROR])] == [2]
    assert [e.id for e in client.list_experiments(name="OTHER")] == [2]
    assert [e.id for e in client.list_experiments(labels=["first"], experiment_ids=[1])] == [1]
    assert client.list_experiments(labels=["none"]) == []


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
    asked = []
    monkeypatch.setattr(
        "detbuild.controller.requests.request",
        lambda _home, id_, verb, trial_id=None: asked.append((id_, verb, trial_id)),
    )
    write_experiment(home.path, state=None)
    getattr(client.get_experiment(1), verb)()
    client.get_trial("1/1").kill()
    assert asked == [(1, verb, None), (1, "kill", 1)]


# trials


@pytest.mark.parametrize("trial_id", ["1/2", (1, 2)])
def test_a_trial_is_named_by_its_experiment_and_number(search, trial_id):
    trial = client.get_trial(trial_id)
    assert (trial.id, trial.experiment_id, trial.number) == ("1/2", 1, 2)
    assert (trial.hparams, trial.state) == ({"lr": 0.2}, TrialState.COMPLETED)
    assert client.get_trial(trial.id).id == trial.id


@pytest.mark.parametrize("trial_id", [1, "1"])
def test_a_lone_number_is_the_first_trial_of_an_experiment(search, trial_id):
    assert client.get_trial(trial_id).id == "1/1"


def test_what_is_no_name_of_a_trial_is_said(search):
    with pytest.raises(ValueError, match="'one' is not a trial"):
        client.get_trial("one")


def test_trials_are_listed_in_the_order_that_is_asked_for(search):
    def listed(*order, **options):
        return [trial.number for trial in client.get_experiment(1).list_trials(*order, **options)]

    assert listed() == [1, 2, 3]
    assert listed(TrialSortBy.ID, OrderBy.DESCENDING) == [3, 2, 1]
    assert listed(TrialSortBy.BEST_VALIDATION_METRIC) == [2, 3, 1]
    assert listed(TrialSortBy.LATEST_VALIDATION_METRIC) == [2, 3, 1]
    assert listed(TrialSortBy.BATCHES_PROCESSED, OrderBy.ASC) == [3, 1, 2]
    assert listed(TrialSortBy.START_TIME, OrderBy.DESC, max_results=2) == [3, 2]


def test_metrics_come_as_they_were_reported(search):
    found = list(client.get_trial("1/1").iter_metrics("validation"))
    assert [(one.trial_id, one.trial_run_id, one.steps_completed, one.group) for one in found] == [
        ("1/1", 0, 1, "validation"),
        ("1/1", 0, 2, "validation"),
    ]
    assert found[0].metrics == {"loss": 0.5, "accuracy": 0.9}
    assert found[0].end_time.utcoffset().total_seconds() == 0
    assert len(list(client.get_trial("1/1").iter_metrics())) == 4
    both = client.stream_trials_metrics(["1/1", "1/3"], "training")
    assert [(one.trial_id, one.metrics["loss"]) for one in both] == [("1/1", 1.0), ("1/1", 0.8), ("1/3", 0.6)]


def test_a_summary_has_determineds_names_of_groups(search):
    summary = client.get_trial("1/1").summary_metrics
    assert summary["avg_metrics"]["loss"]["count"] == 2
    assert summary["validation_metrics"]["loss"]["min"] == 0.4


def test_lines_of_a_trial_are_chosen_as_on_the_command_line(search):
    trial = client.get_trial("1/1")
    assert list(trial.logs(tail=1)) == ["  at line 3\n"]
    assert list(trial.iter_logs(head=1)) == ["INFO: begun\n"]
    assert list(trial.iter_logs(min_level=LogLevel.ERROR)) == ["ERROR: broken\n", "  at line 3\n"]
    assert list(trial.iter_logs(rank_ids=[1], stdtypes=["stderr"])) == []
    assert len(list(trial.iter_logs(follow=True))) == 5
    assert len(list(client.get_experiment(1).logs(head=1))) == 3
    with pytest.raises(ValueError, match="exclude each other"):
        list(trial.iter_logs(follow=True, tail=1))


def test_older_names_of_determineds_methods_lead_to_the_same(search):
    trial = client.get_trial("1/1")
    assert [one.id for one in client.get_experiment(1).get_trials()] == ["1/1", "1/2", "1/3"]
    assert [one.uuid for one in trial.get_checkpoints()] == [one.uuid for one in trial.list_checkpoints()]
    assert len(list(trial.stream_metrics("validation"))) == 2


STATES = (
    "PAUSED QUEUED PULLING STARTING RUNNING ACTIVE STOPPING_COMPLETED STOPPING_CANCELED STOPPING_ERROR"
    " STOPPING_KILLED COMPLETED CANCELED ERROR DELETING DELETED DELETE_FAILED UNSPECIFIED"
)


def test_states_have_determineds_names_and_a_strange_one_is_unspecified():
    assert {state.name for state in ExperimentState} == set(STATES.split())
    assert {state.name for state in TrialState} == set(STATES.split()) - {
        "DELETING",
        "DELETED",
        "DELETE_FAILED",
    }
    for kind in (ExperimentState, TrialState, CheckpointState):
        assert kind("STATE_OF_THE_ART").name == "UNSPECIFIED"
        assert all(state.value == f"STATE_{state.name}" for state in kind)


# checkpoints


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


def test_one_checkpoint_of_a_trial_is_selected(search):
    trial = client.get_trial("1/2")
    assert batches([trial.select_checkpoint(latest=True)]) == [("2", 2)]
    assert batches([trial.select_checkpoint(best=True)]) == [("2", 1)]
    assert batches([trial.top_checkpoint("accuracy", smaller_is_better=False)]) == [("2", 2)]
    uuid = trial.select_checkpoint(best=True).uuid
    assert trial.select_checkpoint(uuid=uuid[:9]).uuid == uuid


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"latest": True, "best": True},
        {"uuid": ""},
        {"uuid": "zzz"},
        {"best": True, "sort_by": "loss"},
        {"latest": True, "sort_by": "loss", "smaller_is_better": True},
        {"best": True, "sort_by": "f1", "smaller_is_better": True},
    ],
)
def test_a_selection_that_means_nothing_is_an_error(search, options):
    with pytest.raises(ValueError, match=r"."):
        client.get_trial("1/1").select_checkpoint(**options)


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


# models


def test_a_model_has_versions_that_are_checkpoints(search):
    uuid = client.get_experiment(1).top_checkpoint().uuid
    model = client.create_model("net", "what for", {"a": 1}, labels=["x"])
    version = model.register_version(uuid)
    assert (version.model_version, version.checkpoint.uuid) == (1, uuid)
    version.set_name("first")
    version.set_notes("good")
    found = client.get_model("net")
    assert (found.description, found.metadata, found.labels, found.model_id) == (
        "what for",
        {"a": 1},
        ["x"],
        "net",
    )
    assert (found.get_version().name, found.get_version(1).notes) == ("first", "good")
    with pytest.raises(errors.NotFoundException):
        found.get_version(2)
    with pytest.raises(errors.NotFoundException):
        found.register_version("ffff")


def test_versions_are_listed_newest_first_and_may_be_deleted(search):
    uuid = client.get_experiment(1).top_checkpoint().uuid
    model = client.create_model("net")
    assert model.get_version() is None
    for _ in range(3):
        model.register_version(uuid)
    assert [one.model_version for one in model.get_versions()] == [3, 2, 1]
    assert [one.model_version for one in model.list_versions(OrderBy.ASC)] == [1, 2, 3]
    model.get_version(2).delete()
    assert [one.model_version for one in model.list_versions()] == [3, 1]


def test_models_are_changed_found_and_deleted(home):
    model = client.create_model("net")
    client.create_model("other", labels=["a"])
    with pytest.raises(ConfigError, match="model net already exists"):
        client.create_model("net")
    model.add_metadata({"a": 1, "b": 2})
    model.remove_metadata(["a"])
    model.set_labels(["a", "b"])
    model.set_description("described")
    model.archive()
    again = client.get_model("net")
    assert (again.metadata, again.labels, again.description) == ({"b": 2}, ["a", "b"], "described")
    assert (again.archived, again.creation_time) == (True, model.creation_time)
    again.unarchive()
    model.reload()
    assert not model.archived
    assert [one.name for one in client.list_models(name="OTH")] == ["other"]
    assert [one.name for one in client.get_models(order_by=client.ModelOrderBy.DESC)] == ["other", "net"]
    assert client.get_model_labels() == ["a", "b"]
    again.delete()
    assert [one.name for one in client.list_models()] == ["other"]


def test_there_are_no_workspaces_to_move_to(home, caplog):
    caplog.set_level("INFO", logger="determined.experimental")
    client.create_model("net", workspace_name="w").move_to_workspace("other")
    assert caplog.text.count("there are no workspaces here") == 2
