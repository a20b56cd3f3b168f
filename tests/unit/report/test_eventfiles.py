from __future__ import annotations

import os

import pytest

from detbuild.errors import ConfigError
from detbuild.report.eventfiles import SelectedTrials, export, hparam_values, refresh, require
from detbuild.store.state import load
from tests.experiments import handle
from tests.synthetic import experiment, hparams


def exported(tmp_path, folder):
    return export([chosen(folder)], tmp_path / "logs")


def chosen(folder):
    trials = [handle(folder).trial_of(trial) for trial in load(folder).trials.values()]
    return SelectedTrials(trials, "validation_loss")


def read(place):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(place), size_guidance={"scalars": 0, "tensors": 0})
    return accumulator.Reload()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scalars_and_hyperparameters_are_read_back(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    folder = experiment(tmp_path / "home", 3)
    places = exported(tmp_path, folder)
    assert [place.name for place in places] == ["exp-1-trial-1", "exp-1-trial-2", "exp-1-trial-3"]
    board = read(places[0])
    assert set(board.Tags()["scalars"]) == {
        "training/loss",
        "validation/validation_loss",
        "validation/accuracy",
    }
    assert [scalar.step for scalar in board.Scalars("validation/validation_loss")] == list(range(20, 201, 20))
    contents = board.PluginTagToContent("hparams")
    start = HParamsPluginData.FromString(contents["_hparams_/session_start_info"]).session_start_info
    assert start.hparams["lr"].number_value == hparams(1)["lr"]
    assert start.hparams["optimizer.name"].string_value == hparams(1)["optimizer"]["name"]
    end = HParamsPluginData.FromString(contents["_hparams_/session_end_info"]).session_end_info
    assert end.status == 1  # success
    assert "_hparams_/session_end_info" not in read(places[2]).PluginTagToContent("hparams")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_a_trial_wrote_itself_is_copied_and_not_written_again(tmp_path):
    pytest.importorskip("tensorboard")
    folder = experiment(tmp_path / "home", 1)
    own = folder.run(1, 0).path / "tensorboard"
    own.mkdir()
    (own / "events.out.tfevents.1.host").write_bytes(b"one")
    for _ in range(2):  # and an export that is repeated doubles nothing
        (place,) = exported(tmp_path, folder)
    copy = place / "run-0" / "events.out.tfevents.1.host"
    assert (copy.is_symlink(), copy.read_bytes()) == (False, b"one")
    assert "training/loss" not in read(place).Tags()["scalars"]
    assert len(list(place.glob("*.detbuild"))) == 1


def test_a_missing_package_is_said_with_its_hint(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ConfigError) as error:
        require()
    assert error.value.hint == "run `pip install 'detbuild[tensorboard]'`"


def test_values_of_other_types_become_text():
    assert hparam_values({"a": {"b": [1, 2]}, "c": None, "d": True}) == {
        "a.b": "[1, 2]",
        "c": "None",
        "d": True,
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_a_trial_adds_is_added_to_the_copy_that_tensorboard_has_open(tmp_path):
    pytest.importorskip("tensorboard")
    folder = experiment(tmp_path / "home", 1)
    own = folder.run(1, 0).path / "tensorboard" / "sub"
    own.mkdir(parents=True)
    (own / "a.tfevents").write_bytes(b"one")
    (place,) = exported(tmp_path, folder)
    copy = place / "run-0" / "sub" / "a.tfevents"
    with copy.open("rb") as reader:
        assert reader.read() == b"one"
        with (own / "a.tfevents").open("ab") as more:
            more.write(b" two")
        (own / "b.tfevents").write_bytes(b"new")
        refresh([chosen(folder)], tmp_path / "logs")
        assert reader.read() == b" two"
    assert (copy.parent / "b.tfevents").read_bytes() == b"new"
    (own / "a.tfevents").write_bytes(b"1")
    refresh([chosen(folder)], tmp_path / "logs")
    assert copy.read_bytes() == b"1"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("above", [False, True], ids=["a link in it", "the directory is a link"])
def test_links_and_pipes_of_a_trial_are_neither_followed_nor_made(tmp_path, above):
    pytest.importorskip("tensorboard")
    folder = experiment(tmp_path / "home", 1)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.tfevents").write_bytes(b"a file of the host")
    own = folder.run(1, 0).path / "tensorboard"
    if above:
        own.symlink_to(outside)
    else:
        own.mkdir()
        (own / "link.tfevents").symlink_to(outside / "x.tfevents")
        (own / "directory").symlink_to(outside)
        os.mkfifo(own / "pipe.tfevents")
        with (own / "huge.tfevents").open("wb") as file:
            file.truncate(1 << 40)
    events = []
    (place,) = export([chosen(folder)], tmp_path / "logs", events.append)
    assert [path for path in place.rglob("*") if path.is_symlink()] == []
    assert b"of the host" not in b"".join(path.read_bytes() for path in place.rglob("*") if path.is_file())
    (warning,) = events
    assert "is a symbolic link" in warning.message
    assert "training/loss" in read(place).Tags()["scalars"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_link_that_an_older_version_made_is_replaced(tmp_path):
    pytest.importorskip("tensorboard")
    folder = experiment(tmp_path / "home", 1)
    own = folder.run(1, 0).path / "tensorboard"
    own.mkdir()
    (own / "a.tfevents").write_bytes(b"one")
    (place,) = exported(tmp_path, folder)
    (place / "run-0" / "a.tfevents").unlink()
    (place / "run-0").rmdir()
    (place / "run-0").symlink_to(own)
    exported(tmp_path, folder)
    assert not (place / "run-0").is_symlink()
    assert (place / "run-0" / "a.tfevents").read_bytes() == b"one"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_hparams_page_has_each_trial_with_its_values_its_metric_and_its_end(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard import context
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2, backend_context, get_experiment, list_session_groups

    folders = [experiment(tmp_path / "home", 3), experiment(tmp_path / "home", 1)]
    export([chosen(folder) for folder in folders], tmp_path / "logs")
    logs = str(tmp_path / "logs")
    board = EventMultiplexer(tensor_size_guidance={})
    board.AddRunsFromDirectory(logs).Reload()
    provider = MultiplexerDataProvider(board, logs)
    backend = backend_context.Context(TBContext(logdir=logs, data_provider=provider))
    asked = context.RequestContext()
    page = get_experiment.Handler(asked, backend, "", api_pb2.GetExperimentRequest()).run()
    assert [metric.display_name for metric in page.metric_infos] == ["validation_loss"]
    request = api_pb2.ListSessionGroupsRequest(slice_size=10, allowed_statuses=range(4))
    request.col_params.extend(api_pb2.ColParams(metric=metric.name) for metric in page.metric_infos)
    groups = list_session_groups.Handler(asked, backend, "", request).run().session_groups
    assert {group.name: group.sessions[0].status for group in groups} == {
        "1/1": api_pb2.STATUS_SUCCESS,
        "1/2": api_pb2.STATUS_FAILURE,
        "1/3": api_pb2.STATUS_UNKNOWN,  # it has not ended
        "2/1": api_pb2.STATUS_SUCCESS,
    }
    trials = load(folders[0]).trials
    for group in groups[:3]:
        number = int(group.name.partition("/")[2])
        assert group.hparams["lr"].number_value == hparams(number)["lr"]
        assert group.hparams["optimizer.name"].string_value == hparams(number)["optimizer"]["name"]
        last = trials[number].progress.validations[-1]
        assert group.metric_values[0].value == pytest.approx(last.metrics["validation_loss"])
        assert group.metric_values[0].training_step == last.steps_completed
