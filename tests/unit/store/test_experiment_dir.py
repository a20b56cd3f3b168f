from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from detbuild.errors import ConfigError, EngineError
from detbuild.store import journal
from detbuild.store.annotations import change_attributes
from detbuild.store.experiment_dir import ExperimentFolder, Header, changed_at

HEADER = Header(id=3, name="n", context_name="c", created=1.0, labels=("a",))


@pytest.fixture
def folder(tmp_path: Path) -> ExperimentFolder:
    folder = ExperimentFolder(tmp_path / "3")
    folder.path.mkdir()
    folder.write(HEADER, {"config.json": b"{}"})
    return folder


def test_a_folder_without_a_header_is_not_an_experiment(tmp_path: Path) -> None:
    folder = ExperimentFolder(tmp_path / "3")
    folder.path.mkdir()
    assert (folder.exists, folder.made) == (False, 0)
    with pytest.raises(ConfigError, match="there is no experiment 3"):
        folder.header()


def test_the_header_is_read_as_it_was_written(folder: ExperimentFolder) -> None:
    assert folder.exists
    assert folder.header() == HEADER


def test_the_header_has_the_edited_name_and_labels(folder: ExperimentFolder) -> None:
    change_attributes(folder.path, lambda old: type(old)(name="new", labels=("b",)))
    assert (folder.header().name, folder.header().labels) == ("new", ("b",))


def test_a_header_of_another_experiment_is_damage(folder: ExperimentFolder) -> None:
    moved = ExperimentFolder(folder.path.rename(folder.path.with_name("4")))
    with pytest.raises(EngineError, match="it is the header of experiment 3"):
        moved.header()


def test_only_the_owner_may_enter_the_runs_and_checkpoints(folder: ExperimentFolder) -> None:
    for name in ("runs", "checkpoints"):
        assert stat.S_IMODE((folder.path / name).stat().st_mode) == 0o700


def test_an_empty_journal_is_damage_only_if_there_are_runs(folder: ExperimentFolder) -> None:
    assert folder.journal() == ()
    (folder.path / "runs" / "1-0").mkdir()
    with pytest.raises(EngineError, match="it has no entries, but there are runs"):
        folder.journal()


def test_a_recorded_fact_is_read_back(folder: ExperimentFolder) -> None:
    entry = folder.record(journal.Paused())
    assert folder.journal() == (entry,)


def test_the_first_config_is_kept_once_the_search_has_begun(folder: ExperimentFolder) -> None:
    folder.replace_config({"name": "x"}, begun=False)
    assert not folder.first_config_file.exists()
    folder.replace_config({"name": "y"}, begun=True)
    folder.replace_config({"name": "z"}, begun=True)
    assert json.loads(folder.first_config_file.read_bytes()) == {"name": "x"}
    assert json.loads(folder.config_file.read_bytes()) == {"name": "z"}


def test_the_time_of_a_file_is_0_if_it_is_missing_and_that_of_a_link_its_own(tmp_path: Path) -> None:
    assert changed_at(tmp_path / "missing") == 0
    (tmp_path / "file").touch()
    assert changed_at(tmp_path / "file" / "below") == 0
    (tmp_path / "link").symlink_to("nowhere")
    assert changed_at(tmp_path / "link") == (tmp_path / "link").lstat().st_mtime_ns
