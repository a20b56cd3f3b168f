from __future__ import annotations

import json
from pathlib import Path

import pytest

from detbuild.checkpoint.protected import parents, registered, sources
from detbuild.errors import EngineError
from detbuild.store.home import Home
from detbuild.store.runs import RunRecords
from determined._records import Checkpoint, Restored


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home")


def test_every_version_of_every_model_is_protected(home: Home) -> None:
    assert registered(home) == frozenset()
    (home.path / "models").mkdir()
    for name, uuids in (("a", ["1", "2"]), ("b", ["3"]), ("c", [])):
        versions = [{"checkpoint": uuid, "version": 1} for uuid in uuids]
        (home.path / "models" / f"{name}.json").write_text(json.dumps({"name": name, "versions": versions}))
    assert registered(home) == {"1", "2", "3"}


@pytest.mark.parametrize("text", ["{", "[]", '{"versions": [{}]}', '{"versions": 3}'])
def test_a_registry_that_cannot_be_read_is_no_empty_one(home: Home, text: str) -> None:
    (home.path / "models").mkdir()
    (home.path / "models" / "a.json").write_text(text)
    with pytest.raises(EngineError, match="no checkpoint is removed"):
        registered(home)


def test_what_experiments_start_from_is_protected(home: Home) -> None:
    for searcher in ({"source_checkpoint_uuid": "1"}, {}, None):
        folder = home.new_experiment()
        folder.config_file.write_text(json.dumps({"searcher": searcher}))
    home.new_experiment().config_file.write_text("{")
    assert sources(home) == {"1"}


def test_what_a_trial_of_a_search_started_from_is_protected() -> None:
    def checkpoint(uuid: str) -> Checkpoint:
        return Checkpoint(uuid, 1, {})

    parent = (RunRecords(checkpoints=(checkpoint("1"), checkpoint("2"))),)
    child = (
        RunRecords(restored=Restored("2", 1), checkpoints=(checkpoint("3"),)),
        RunRecords(restored=Restored("3", 2)),
    )
    assert parents((parent, child)) == {"2"}
