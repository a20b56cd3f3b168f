from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from detbuild.checkpoint.download import damage, download
from detbuild.checkpoint.find import Found, checkpoints_of, find_checkpoint
from detbuild.errors import ConfigError, EngineError
from tests.fakes import FakeEngine
from tests.faults.training import Rig, rig, submit, train

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def trained(tmp_path: Path) -> Rig:
    keep = {"checkpoint_storage": {"save_trial_latest": 3}}
    tried = rig(tmp_path / "home", engine=FakeEngine(train), changes=keep)
    tried.run()
    return tried


def newest(trained: Rig) -> Found:
    return checkpoints_of(trained.folder)[0]


def directory(trained: Rig) -> Path:
    found = newest(trained).directory
    assert found is not None
    return found


def content(place: Path) -> dict[str, bytes]:
    return {
        path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()
    }


def test_checkpoints_are_listed_newest_first_with_what_they_are_worth(trained: Rig) -> None:
    found = checkpoints_of(trained.folder)
    assert [each.checkpoint.steps_completed for each in found] == [6, 4, 2]
    assert {each.state for each in found} == {"COMPLETED"}
    assert [list(each.checkpoint.validation.metrics) for each in found if each.checkpoint.validation] == [
        ["accuracy"]
    ] * 3


def test_a_checkpoint_whose_directory_is_gone_is_deleted(trained: Rig) -> None:
    shutil.rmtree(directory(trained))
    assert [each.state for each in checkpoints_of(trained.folder)] == ["DELETED", "COMPLETED", "COMPLETED"]
    assert damage(newest(trained)) == ["it is not on this host"]


def test_a_checkpoint_is_found_in_whatever_experiment_by_the_beginning_of_its_name(trained: Rig) -> None:
    keep = {"checkpoint_storage": {"save_trial_latest": 3}}
    other = Rig(trained.home, trained.engine, submit(trained.home, trained.folder.header().image, keep))
    other.run()
    for each in (*checkpoints_of(trained.folder), *checkpoints_of(other.folder)):
        assert find_checkpoint(trained.home, each.checkpoint.uuid) == each
        assert find_checkpoint(trained.home, each.checkpoint.uuid[:18]) == each


def test_an_experiment_that_cannot_be_read_hides_no_checkpoint_of_another(trained: Rig) -> None:
    broken = submit(trained.home, trained.folder.header().image)
    broken.config_file.unlink()
    for each in checkpoints_of(trained.folder):
        assert find_checkpoint(trained.home, each.checkpoint.uuid[:18]) == each
    with pytest.raises(EngineError, match=f"cannot read {broken.config_file}"):
        find_checkpoint(trained.home, "nope")


def test_a_name_that_fits_none_or_many_is_refused(trained: Rig) -> None:
    with pytest.raises(ConfigError, match="there is no checkpoint 'nope'"):
        find_checkpoint(trained.home, "nope")
    with pytest.raises(ConfigError, match="there is no checkpoint ''"):
        find_checkpoint(trained.home, "")


def test_a_download_is_a_whole_copy(trained: Rig, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "copy"
    download(newest(trained), target)
    assert content(target) == content(directory(trained))
    assert damage(newest(trained)) == []
    assert [path.name for path in target.parent.iterdir()] == ["copy"]


def test_a_download_into_something_is_refused(trained: Rig, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "mine").touch()
    with pytest.raises(ConfigError, match="already exists"):
        download(newest(trained), tmp_path / "copy")


def test_a_download_into_an_empty_directory_is_fine(trained: Rig, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    download(newest(trained), tmp_path / "copy")
    assert content(tmp_path / "copy") == content(directory(trained))


@pytest.mark.parametrize("harm", ["truncate", "remove", "add", "link", "manifest"])
def test_a_damaged_checkpoint_is_not_downloaded(trained: Rig, tmp_path: Path, harm: str) -> None:
    place = directory(trained)
    if harm == "truncate":
        (place / "state.json").write_text("{")
    elif harm == "remove":
        (place / "state.json").unlink()
    elif harm == "add":
        (place / "more").touch()
    elif harm == "link":
        body = (place / "state.json").read_bytes()
        (tmp_path / "outside").write_bytes(body)
        (place / "state.json").unlink()
        (place / "state.json").symlink_to(tmp_path / "outside")
    else:
        (place / "manifest.json").write_text('{"files": {"../../escape": {"size": 0, "sha256": ""}}}')
    with pytest.raises(EngineError):
        download(newest(trained), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert not list(tmp_path.glob(".copy*"))
