"""Disks of odd kinds: without locks, and with no inodes left."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from detbuild.controller.lease import blocked_reason, holder, lease
from detbuild.controller.retry import FreeSpace
from detbuild.errors import DiskFullError, EngineError
from detbuild.store.experiment_dir import Header
from detbuild.store.files import alone, write_synced
from detbuild.store.home import Home
from detbuild.store.state import fold
from determined._contract import checkpoints
from determined._contract.checkpoints import storage_errors
from determined._contract.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

NO_LOCKS = [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS]


@pytest.fixture
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_descriptor: int, _kind: int) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.parametrize("no_locks", NO_LOCKS, indirect=True)
@pytest.mark.usefixtures("no_locks")
def test_a_home_without_locks_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    home = Home.open(tmp_path)
    with pytest.raises(EngineError, match=r"the file system of .* does not support file locks") as caught:
        home.new_experiment()
    assert caught.value.hint == "set DETBUILD_HOME to a directory on a disk of this host"
    assert home.ids() == ()


@pytest.mark.parametrize("no_locks", NO_LOCKS, indirect=True)
@pytest.mark.usefixtures("no_locks")
def test_no_lock_is_taken_to_be_held_where_there_are_none(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="does not support file locks"), lease(tmp_path / "lease"):
        pytest.fail("two controllers could run")
    with pytest.raises(EngineError, match="does not support file locks"):
        holder(tmp_path / "lease")
    with pytest.raises(EngineError, match="does not support file locks"), alone(tmp_path / "lock"):
        pytest.fail("two processes could change it")
    assert tmp_path not in {file.resolve().parent for file in Path("/proc/self/fd").iterdir()}


@pytest.mark.parametrize("no_locks", NO_LOCKS, indirect=True)
@pytest.mark.usefixtures("no_locks")
def test_a_draft_of_a_checkpoint_on_a_disk_without_locks_is_never_swept(tmp_path: Path) -> None:
    """Of a living run and of a dead one: there is no telling them apart."""
    name = checkpoints.draft_name("some")
    with checkpoints.drafted(tmp_path, name) as draft:
        (draft / "weights").touch()
        checkpoints.sweep(tmp_path)
        assert (draft / "weights").exists()
    assert not draft.exists()


# inodes


@pytest.fixture
def few(tmp_path: Path) -> Iterator[Path]:
    """A disk with space for much, and for few files."""
    if os.getuid() != 0:
        pytest.skip("only root can mount a small file system")
    small = tmp_path / "few"
    small.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=64m,nr_inodes=400", "tmpfs", str(small)]
    subprocess.run(options, check=True)
    try:
        yield small
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


@contextmanager
def used_up(disk: Path) -> Iterator[None]:
    """Take all inodes that are left, until the block ends."""
    litter = disk / "litter"
    litter.mkdir()
    with suppress(OSError):
        for number in range(100_000):
            (litter / str(number)).touch()
    assert os.statvfs(disk).f_favail == 0
    assert os.statvfs(disk).f_bavail > 0
    yield
    for file in litter.iterdir():
        file.unlink()


def test_used_up_inodes_are_said_as_such_and_the_old_content_stays(few: Path) -> None:
    write_synced(few / "file", b"old")
    with used_up(few):
        with pytest.raises(DiskFullError, match=f"no inodes left to write {few}/file") as caught:
            write_synced(few / "file", b"new")
        assert f"df -i {few}" in caught.value.hint
        assert (few / "file").read_bytes() == b"old"
    write_synced(few / "file", b"new")
    assert (few / "file").read_bytes() == b"new"


def test_a_checkpoint_on_a_disk_without_inodes_says_so(few: Path) -> None:
    failed = pytest.raises(StorageError, match="no inodes left")
    with used_up(few), failed as caught, storage_errors("a checkpoint", few):
        (few / "weights").write_bytes(b"x")
    assert f"df -i {few}" in caught.value.hint


def test_an_experiment_on_a_disk_without_inodes_says_what_it_waits_for(few: Path) -> None:
    folder = Home.open(few).new_experiment()
    header = Header(id=1, name="n", context_name="c", created=0.0)
    state = fold(header, ())
    with used_up(few):
        free_space = FreeSpace(few, needed=1)
        assert not free_space.available()
        assert blocked_reason(folder, state).startswith(f"no inodes left on the disk of {folder.path}")
    assert free_space.available()
