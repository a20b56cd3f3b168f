"""`Determined` and the functions of the client: create, find and list."""

from __future__ import annotations

import pytest

from detbuild.controller.loop import controller_of
from detbuild.errors import ConfigError
from detbuild.runtime.docker import DockerRuntime
from determined.experimental import Determined, ExperimentReference, TrialReference, client
from determined.experimental.client import (
    ExperimentSortBy,
    ExperimentState,
    OrderBy,
)
from tests.experiments import write_experiment
from tests.fakes import FakeEngine
from tests.unit.cli.shells import train

CONFIG = {
    "name": "from python",
    "entrypoint": "model_def:Tiny",
    "searcher": {"name": "single", "metric": "loss", "max_length": {"batches": 1}},
    "resources": {"slots_per_trial": 0},
}


def test_every_way_to_an_experiment_leads_to_the_same(search):
    assert Determined(master="http://m", user="u").get_experiment(1).name == client.get_experiment(1).name
    assert ExperimentReference is client.Experiment
    assert TrialReference is client.Trial


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


@pytest.fixture
def engine(tmp_path, monkeypatch):
    engine = FakeEngine(train)
    for name in (
        "python:3.11-slim",
        "detbuild-base:cpu-debian12-py3.11",
        "detbuild-base:cpu-debian13-py3.13",
    ):
        engine.add_image(name)
    monkeypatch.setattr("detbuild.sdk.host.connect", lambda: engine)
    monkeypatch.setattr(
        "detbuild.experiment.start_detached",
        lambda folder, _: controller_of(folder, DockerRuntime.of(folder, engine)).run(),
    )
    monkeypatch.setenv("DETBUILD_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_def.py").write_text("class Tiny(Base): ...\n")
    (tmp_path / "extra.txt").write_text("more")
    return engine


def test_a_mapping_and_a_directory_become_an_experiment(engine):
    experiment = client.create_experiment(CONFIG, "model", includes=["extra.txt"])
    assert (experiment.id, experiment.name) == (1, "from python")
    assert experiment.wait(interval=0.01) is ExperimentState.COMPLETED
    (plan,) = engine.built
    assert [entry.path for entry in plan.trees["context"].entries] == ["extra.txt", "model_def.py"]


def test_a_file_becomes_one_and_is_kept_as_it_was_written(engine, tmp_path):
    text = (
        "# mine\nname: from a file\nentrypoint: model_def:Tiny\nresources: {slots_per_trial: 0}\n"
        "searcher: {name: single, metric: loss, max_length: {batches: 1}}\n"
    )
    (tmp_path / "config.yaml").write_text(text)
    assert client.create_experiment("config.yaml", tmp_path / "model").name == "from a file"
    assert (tmp_path / "home" / "experiments" / "1" / "config.yaml").read_text() == text


def test_the_hosts_config_lies_below(engine, tmp_path):
    (tmp_path / "home").mkdir(exist_ok=True)
    (tmp_path / "home" / "config.yaml").write_text("task_container_defaults: {preemption_timeout: 9}\n")
    assert client.create_experiment(CONFIG, "model").config["preemption_timeout"] == 9


def test_a_project_is_said_to_have_no_meaning(engine, caplog):
    caplog.set_level("INFO", logger="determined.experimental")
    client.create_experiment(CONFIG, "model", project_id=3, parent_id=1)
    assert "project_id is ignored: there are no projects here" in caplog.text
    assert "parent_id is ignored" in caplog.text


def test_a_config_that_is_wrong_makes_no_experiment(engine):
    with pytest.raises(ConfigError, match="entrypoint"):
        client.create_experiment({"searcher": CONFIG["searcher"]}, "model")
    with pytest.raises(ConfigError, match="model_dir is required\n  hint: "):
        client.create_experiment(CONFIG)
    assert client.list_experiments() == []
