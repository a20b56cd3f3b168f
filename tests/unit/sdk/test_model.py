"""The model registry from Python."""

from __future__ import annotations

import pytest

from detbuild.errors import ConfigError
from determined.common.api import errors
from determined.experimental import client
from determined.experimental.client import (
    OrderBy,
)


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
