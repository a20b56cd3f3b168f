from __future__ import annotations

import errno
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from detbuild.checkpoint import transfer as module
from detbuild.checkpoint.download import copy_whole
from detbuild.checkpoint.source import import_checkpoint
from detbuild.checkpoint.transfer import (
    DamagedError,
    copy_content,
    remove_local,
    remove_local_files,
    sweep_drafts,
    upload,
)
from detbuild.errors import ConfigError, EngineError
from detbuild.store.home import Home
from determined._contract import checkpoints

if TYPE_CHECKING:
    from detbuild.checkpoint.bucket import CheckpointBucket

_SIZES = (0, 1, (1 << 20) + 7)
_OUTSIDE = b"not of the trial"


@pytest.mark.parametrize("size", _SIZES)
@pytest.mark.parametrize("refused_after", [0, 1, 1 << 20, None])
def test_content_is_copied_whatever_the_kernel_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, refused_after: int | None
) -> None:
    body = os.urandom(size)
    (tmp_path / "a").write_bytes(body)
    copied = os.copy_file_range

    def stingy(source: int, target: int, count: int) -> int:
        done = os.lseek(source, 0, os.SEEK_CUR)
        if refused_after is not None and done >= refused_after:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return copied(source, target, count if refused_after is None else min(count, refused_after - done))

    monkeypatch.setattr(module.os, "copy_file_range", stingy)
    with (tmp_path / "a").open("rb") as source, (tmp_path / "b").open("xb") as target:
        copy_content(source.fileno(), target.fileno())
    assert (tmp_path / "b").read_bytes() == body
    assert (tmp_path / "b").stat().st_ino != (tmp_path / "a").stat().st_ino


class _Refuses:
    """A bucket that holds nothing, and that nothing may be sent to."""

    def sizes(self, _uuid: str) -> dict[str, int]:
        return {}

    def put(self, *_: object) -> None:
        raise AssertionError("sent")

    write = put


def _link(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "file")


def _link_to_directory(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


def _dangling(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "absent")


def _pipe(path: Path, _outside: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path, _outside: Path) -> None:
    directory = os.open(path.parent, os.O_DIRECTORY)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(f"/proc/self/fd/{directory}/{path.name}")  # a path of any length
    os.close(directory)


def _directory(path: Path, _outside: Path) -> None:
    path.mkdir()


_OBSTACLES = [_link, _link_to_directory, _dangling, _pipe, _socket, _directory]
_PLACES = ["weights", "optimizer/state", "optimizer", "manifest.json", "metadata.json", "extra", ""]


def _stored(root: Path) -> Path:
    with checkpoints.store(root, {"steps_completed": 1}) as (path, uuid):
        (path / "weights").write_text("heavy")
        (path / "optimizer").mkdir()
        (path / "optimizer" / "state").write_text("o")
        (path / "optimizer" / "more").write_text("m")
    return root / uuid


def _replaced(checkpoint: Path, place: str, obstacle: Callable[[Path, Path], None], outside: Path) -> None:
    outside.mkdir()
    for name in ("file", "state", "more", "weights", "manifest.json"):
        (outside / name).write_bytes(_OUTSIDE)
    target = checkpoint / place
    if target.is_dir():
        target.rename(outside.parent / "aside")
    else:
        target.unlink(missing_ok=True)
    obstacle(target, outside)


def _untouched(outside: Path) -> bool:
    return {path.read_bytes() for path in outside.iterdir()} == {_OUTSIDE} and len(
        list(outside.iterdir())
    ) == 5


@pytest.mark.parametrize("obstacle", _OBSTACLES)
@pytest.mark.parametrize("place", _PLACES)
def test_what_cannot_be_part_of_a_checkpoint_is_damage_wherever_it_is_and_nothing_outside_is_touched(
    tmp_path: Path, place: str, obstacle: Callable[[Path, Path], None]
) -> None:
    checkpoint = _stored(tmp_path / "root")
    _replaced(checkpoint, place, obstacle, tmp_path / "outside")
    before = _tree(checkpoint)
    if (place, obstacle) == ("extra", _directory):  # an empty one is part of nothing
        assert checkpoints.verify(checkpoint) == []
        return
    assert checkpoints.verify(checkpoint)
    bucket: CheckpointBucket = _Refuses()  # type: ignore[assignment]
    for change in (
        lambda: copy_whole(checkpoint, tmp_path / "copy"),
        lambda: upload(checkpoint, bucket),
        lambda: remove_local_files(checkpoint.parent, checkpoint.name, ["optimizer/state"]),
    ):
        with pytest.raises(DamagedError, match="is damaged: "):
            change()
    assert checkpoints.read_metadata(checkpoint) == (
        {} if place in {"", "metadata.json"} else {"steps_completed": 1}
    )
    assert _tree(checkpoint) == before
    assert _untouched(tmp_path / "outside")
    assert not (tmp_path / "copy").exists()
    remove_local(checkpoint.parent, checkpoint.name)
    assert list(checkpoint.parent.iterdir()) == []
    assert _untouched(tmp_path / "outside")


def _tree(directory: Path) -> list[tuple[str, int]]:
    paths = [directory, *directory.rglob("*")]
    return sorted((str(path), stat.S_IFMT(path.lstat().st_mode)) for path in paths)


@pytest.mark.parametrize("obstacle", [_link, _link_to_directory, _dangling, _pipe, _socket])
@pytest.mark.parametrize("sealed", [True, False])
def test_an_import_of_what_a_trial_left_takes_regular_files_alone(
    tmp_path: Path, obstacle: Callable[[Path, Path], None], *, sealed: bool
) -> None:
    home = Home.open(tmp_path / "home")
    checkpoint = _stored(tmp_path / "root")
    if not sealed:
        (checkpoint / "manifest.json").unlink()
    _replaced(checkpoint, "weights", obstacle, tmp_path / "outside")
    with pytest.raises((EngineError, ConfigError), match="weights is not a regular file"):
        import_checkpoint(home, checkpoint)
    assert list(home.imported.iterdir()) == []


def test_a_failure_has_a_cause_and_is_no_removal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = _stored(tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise OSError

    monkeypatch.setattr(os, "rmdir", fail)
    with pytest.raises(EngineError, match=f"cannot write {checkpoint}: .*OSError"):
        remove_local(tmp_path, checkpoint.name)
    monkeypatch.undo()
    remove_local(tmp_path, checkpoint.name)
    assert list(tmp_path.iterdir()) == []


_KILLED = """
import os, signal, sys
from pathlib import Path
from detbuild.checkpoint import source as sources, transfer
from detbuild.checkpoint.download import copy_whole
from detbuild.store.home import Home

def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)

way, source, target = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
transfer.copy_content = killed
sources.extract = killed
if way == "copy":
    copy_whole(source, target)
else:
    sources.import_checkpoint(Home.open(target), source)
"""


def _kill(way: str, source: Path, target: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", _KILLED, way, source, target], check=False)
    assert ended.returncode == -signal.SIGKILL


def test_a_killed_copy_leaves_a_draft_that_the_next_one_sweeps_and_no_other(tmp_path: Path) -> None:
    checkpoint, target = _stored(tmp_path / "root"), tmp_path / "copies" / "best"
    _kill("copy", checkpoint, target)
    _kill("copy", checkpoint, tmp_path / "copies" / "other")
    (tmp_path / "copies" / ".cache.tmp").mkdir()
    assert len(list(target.parent.iterdir())) == 3
    copy_whole(checkpoint, target)
    left = sorted(path.name.partition(".tmp")[0][:7] for path in target.parent.iterdir())
    assert left == [".cache", ".other.", "best"]


@pytest.mark.parametrize("way", ["a directory", "a directory without a manifest", "an archive"])
def test_a_killed_import_leaves_a_draft_that_the_next_one_sweeps(tmp_path: Path, way: str) -> None:
    source, home = _stored(tmp_path / "root"), Home.open(tmp_path / "home")
    if way != "a directory":
        (source / "manifest.json").unlink()
    if way == "an archive":
        (tmp_path / "a.tar").write_bytes(b"")
    _kill("import", tmp_path / "a.tar" if way == "an archive" else source, home.path)
    assert len(list(home.imported.iterdir())) == (1 if way == "an archive" else 2)
    (home.imported / ".taken-abcd").mkdir()  # of an earlier version
    import_checkpoint(home, source)
    assert [path.name for path in home.imported.iterdir()] == [source.name]


def test_drafts_in_use_and_the_files_of_others_are_not_swept(tmp_path: Path) -> None:
    uuid = "5f2a6f0e-6a54-4d54-9c1b-0d0f3f2d9f11"
    others = (".snapshot", ".snapshot.20240101", ".cache.tmp", ".x", uuid)
    for name in (*others, f".{uuid}.fetched", f".{uuid}.deleted", f".{uuid}.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("")
    with checkpoints.drafted(tmp_path, checkpoints.draft_name("in-use")) as draft:
        sweep_drafts(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {*others, draft.name}
