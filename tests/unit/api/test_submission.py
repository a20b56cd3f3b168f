from __future__ import annotations

import pytest

from detbuild.api.submission import (
    build,
    listing,
    listing_document,
    plan,
    plan_document,
    request_file,
    request_parsed,
    submit,
)
from detbuild.controller.loop import controller_of
from detbuild.errors import ConfigError
from detbuild.events import ExperimentCreated
from detbuild.runtime.docker import DockerRuntime
from detbuild.store.state import State
from tests.fakes import FakeEngine
from tests.unit.cli.conftest import BASES, CONFIG
from tests.unit.cli.shells import train


@pytest.fixture
def engine(client, tmp_path, monkeypatch):
    """Controllers run in this process, on the engine in memory."""
    engine = FakeEngine(train)
    for base in BASES:
        engine.add_image(base)

    def control(folder, _held):
        controller_of(folder, DockerRuntime.of(folder, engine)).run()

    monkeypatch.setattr("detbuild.runtime.docker.lock_directory", lambda: tmp_path)
    monkeypatch.setattr("detbuild.experiment.start_detached", control)
    object.__setattr__(client, "connect", lambda: engine)
    return engine


@pytest.fixture
def project(tmp_path):
    directory = tmp_path / "project"
    directory.mkdir()
    (directory / "const.yaml").write_text(CONFIG)
    (directory / "model_def.py").write_text("class Tiny(Base): ...\n")
    return directory


@pytest.fixture
def request_(client, project):
    return request_file(client, project / "const.yaml", project)


def test_a_submitted_experiment_trains_in_the_background(client, engine, events, request_):
    id_ = submit(client, request_, events.append)
    assert any(isinstance(event, ExperimentCreated) for event in events)
    assert client.experiment(id_).state().state == State.COMPLETED


def test_a_paused_submission_starts_nothing(client, engine, events, request_):
    id_ = submit(client, request_, events.append, paused=True)
    assert client.experiment(id_).state().state == State.PAUSED
    assert not engine.containers


def test_equal_inputs_are_built_once(client, engine, events, request_):
    image, tag = build(client, request_, events.append)
    assert build(client, request_, events.append) == (image, tag)
    assert len(engine.built) == 1


def test_a_plan_needs_no_engine_and_masks_variables(client, project, request_):
    file = project / "const.yaml"
    request = request_file(client, file, project, overrides=["environment.environment_variables=[A=secret1]"])
    planned = plan(client, request, show_secrets=False)
    assert planned.tag.startswith("detbuild:")
    assert "secret1" not in str(plan_document(planned))
    assert "secret1" in str(plan_document(plan(client, request, show_secrets=True)))


def test_options_of_a_request_are_its_fields(client, project):
    request = request_file(client, project / "const.yaml", project, test_mode=True, allow_any_context=True)
    assert (request.context_dir, request.test_mode, request.allow_any_context) == (project, True, True)


def test_a_local_request_ignores_a_broken_host_config(client, project):
    client.path.mkdir(parents=True)
    (client.path / "config.yaml").write_text("gpu: [0]\n")
    with pytest.raises(ConfigError, match="unknown field"):
        request_file(client, project / "const.yaml", project)
    assert request_file(client, project / "const.yaml", project, local=True).config.name == "tiny"


def test_a_parsed_config_is_submitted_as_it_is(client, project, request_):
    request = request_parsed(
        request_.config, request_.text, project, includes=[project / "x"], test_mode=True
    )
    assert (request.config, request.includes, request.test_mode) == (request_.config, (project / "x",), True)


def test_a_listing_says_what_is_left_out_and_why(client, project):
    (project / ".detignore").write_text("*.yaml\n")
    document = listing_document(listing(client, project, ()))
    assert [entry["path"] for entry in document["kept"]] == ["model_def.py"]
    assert ("const.yaml", "*.yaml") in [(entry["path"], entry["rule"]) for entry in document["left_out"]]
