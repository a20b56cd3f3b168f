from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from detbuild.checkpoint.imported import import_checkpoint
from detbuild.errors import ConfigError, EngineError
from detbuild.store.home import Home
from determined import _checkpoints

UUID = "5f2a6f0e-6a54-4d54-9c1b-0d0f3f2d9f11"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home")


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """As Determined writes one: without a manifest."""
    directory = tmp_path / UUID
    (directory / "code").mkdir(parents=True)
    (directory / "state_dict.pth").write_bytes(b"weights")
    (directory / "metadata.json").write_text('{"steps_completed": 7}')
    return directory


def packed(directory: Path, archive: Path, *, name: str = "") -> Path:
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(directory, arcname=name or ".")
    return archive


def test_a_directory_is_taken_in_under_its_own_name_and_sealed(home: Home, theirs: Path) -> None:
    assert import_checkpoint(home, theirs) == UUID
    assert _checkpoints.verify(home.imported / UUID) == []
    assert _checkpoints.steps_completed(home.imported / UUID) == 7
    assert [path.name for path in home.imported.iterdir()] == [UUID]


@pytest.mark.parametrize("top", ["", UUID])
def test_an_archive_is_taken_in(home: Home, theirs: Path, tmp_path: Path, top: str) -> None:
    name = f"{UUID}.tar.gz" if not top else "download.tar.gz"
    assert import_checkpoint(home, packed(theirs, tmp_path / name, name=top)) == UUID
    assert (home.imported / UUID / "state_dict.pth").read_bytes() == b"weights"


def test_without_a_name_of_its_own_it_gets_one(home: Home, theirs: Path, tmp_path: Path) -> None:
    name = import_checkpoint(home, packed(theirs, tmp_path / "a.tar.gz"))
    assert (home.imported / name).is_dir()
    assert import_checkpoint(home, theirs, "resnet-50") == "resnet-50"


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden"])
def test_a_name_that_leads_elsewhere_is_refused(home: Home, theirs: Path, name: str) -> None:
    if name:
        with pytest.raises(ConfigError, match="not a valid checkpoint name"):
            import_checkpoint(home, theirs, name)
    else:
        assert import_checkpoint(home, theirs, name) == UUID


def test_one_that_is_there_stays_as_it_is(home: Home, theirs: Path) -> None:
    import_checkpoint(home, theirs)
    (theirs / "state_dict.pth").write_bytes(b"others")
    with pytest.raises(ConfigError, match="already"):
        import_checkpoint(home, theirs)
    assert (home.imported / UUID / "state_dict.pth").read_bytes() == b"weights"


def test_one_with_a_manifest_has_to_be_whole(home: Home, tmp_path: Path) -> None:
    with _checkpoints.store(tmp_path, {}) as (draft, uuid):
        (draft / "weights").write_bytes(b"123")
    (tmp_path / uuid / "weights").write_bytes(b"124")
    with pytest.raises(EngineError, match="damaged"):
        import_checkpoint(home, tmp_path / uuid)
    assert list(home.imported.iterdir()) == []


def test_links_and_nothing_at_all_are_refused(home: Home, theirs: Path, tmp_path: Path) -> None:
    (theirs / "link").symlink_to("/etc/passwd")
    with pytest.raises(ConfigError, match="is not a regular file"):
        import_checkpoint(home, theirs)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="has no files"):
        import_checkpoint(home, tmp_path / "empty")
    with pytest.raises(ConfigError, match="there is no file"):
        import_checkpoint(home, tmp_path / "nowhere")
    assert list(home.imported.iterdir()) == []


def test_a_link_below_the_home_leads_to_nothing_that_is_taken_in(home: Home, theirs: Path) -> None:
    checkpoints = home.new_experiment().checkpoints
    checkpoints.mkdir()
    (checkpoints / "whole").symlink_to(theirs)
    (checkpoints / "above").symlink_to(theirs.parent)
    for source in (checkpoints / "whole", checkpoints / "above" / theirs.name):
        with pytest.raises(ConfigError, match="symbolic link"):
            import_checkpoint(home, source)
    moved = home.path.with_name("linked-home")
    moved.symlink_to(home.path)
    with pytest.raises(ConfigError, match="symbolic link"):
        import_checkpoint(Home.open(moved), moved / "experiments" / "1" / "checkpoints" / "whole")


def test_a_directory_that_is_too_deep_is_damage_and_no_defect(home: Home, theirs: Path) -> None:
    deep = theirs
    for _ in range(100):
        deep /= "d"
        deep.mkdir()
    with pytest.raises(
        EngineError, match=f"checkpoint {theirs.name} is damaged: .* lies 64 directories deep"
    ):
        import_checkpoint(home, theirs)
