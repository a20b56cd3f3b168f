from __future__ import annotations

from dataclasses import replace

import pytest

from detbuild.api.registry import model_document
from detbuild.errors import ConfigError
from tests.experiments import uuids, write_experiment


@pytest.fixture
def model(client):
    return client.models.create("net", description="a net", metadata={"a": 1}, labels=["x"])


def test_a_model_is_listed_and_read_by_its_name(client, model):
    assert client.models.all() == (model,)
    assert client.models.model("net") == model
    with pytest.raises(ConfigError, match="already"):
        client.models.create("net", description="", metadata={}, labels=())


def test_a_registered_checkpoint_is_protected_until_its_version_is_deleted(client, model):
    (uuid,) = uuids(write_experiment(client.path))
    version = client.models.register("net", uuid[:8], version_name="first")
    assert (version.version, version.checkpoint, version.name) == (1, uuid, "first")
    with pytest.raises(ConfigError, match="registered"):
        client.delete_checkpoints([uuid])
    client.models.delete_version("net", 1)
    assert client.delete_checkpoints([uuid]) == [uuid]


def test_models_and_versions_are_changed(client, model):
    (uuid,) = uuids(write_experiment(client.path))
    client.models.register("net", uuid)
    client.models.change("net", lambda before: replace(before, archived=True))
    client.models.change_version("net", 1, lambda before: replace(before, notes="good"))
    document = model_document(client.models.model("net"))
    assert (document["archived"], document["labels"]) == (True, ["x"])
    assert [version["notes"] for version in document["versions"]] == ["good"]


def test_a_deleted_model_is_gone(client, model):
    client.models.delete("net")
    assert client.models.all() == ()


def test_templates_are_written_read_and_removed(client, tmp_path):
    file = tmp_path / "part.yaml"
    file.write_text("max_restarts: 1\n")
    client.templates.write("part", file)
    assert (client.templates.names(), client.templates.read("part")) == (("part",), "max_restarts: 1\n")
    with pytest.raises(ConfigError, match="already exists"):
        client.templates.write("part", file, replace=False)
    client.templates.remove("part")
    assert not client.templates.file("part").exists()


def test_a_template_is_a_map(client, tmp_path):
    file = tmp_path / "part.yaml"
    file.write_text("- 1\n")
    with pytest.raises(ConfigError, match="must be a map of fields"):
        client.templates.write("part", file)
