from __future__ import annotations

import pytest

from detbuild.checkpoint.source import register_checkpoint
from detbuild.errors import ConfigError
from detbuild.store.home import Home
from detbuild.store.registry import Model, create_model, registered
from tests.experiments import uuids, write_experiment


@pytest.fixture
def home(tmp_path):
    home = Home.open(tmp_path / "home")
    create_model(home, Model(name="net", created=1.0))
    return home


def test_the_whole_uuid_is_registered_whatever_was_given_of_it(home):
    uuid = uuids(write_experiment(home.path))[0]
    version = register_checkpoint(home, "net", uuid[:6], name="n", comment="c")
    assert (version.version, version.checkpoint, version.name, version.comment) == (1, uuid, "n", "c")
    assert registered(home) == {uuid: ("net:1",)}


def test_what_is_not_there_any_more_is_not_registered(home):
    folder = write_experiment(home.path)
    uuid = uuids(folder)[0]
    (folder.checkpoints / uuid).rename(folder.checkpoints / "away")
    with pytest.raises(ConfigError, match=f"{uuid} is DELETED: there is nothing to register"):
        register_checkpoint(home, "net", uuid)
    assert registered(home) == {}
