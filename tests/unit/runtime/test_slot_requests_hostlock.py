from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from detbuild.runtime.slot_requests import UserLock, lock_directory, lock_for_writing, locked_for_writing

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("mode", "taken"), [(0o1777, True), (0o755, False), (0o777, False)])
def test_the_lock_lies_where_all_users_may_write(tmp_path: Path, mode: int, taken: bool) -> None:
    tmp_path.chmod(mode)
    assert (lock_directory(tmp_path) == tmp_path) is taken
    assert str(lock_directory(tmp_path / "absent")) == "/tmp"


HOLD = """
import sys
from pathlib import Path
from detbuild.runtime.slot_requests import UserLock
with UserLock(Path(sys.argv[1])).held() as held:
    print(held, flush=True)
    input()
"""


def holder(directory: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "True\n"
    return process


def acquired(lock: UserLock) -> bool:
    with lock.held() as held:
        return held


def test_only_one_process_of_a_user_chooses_at_a_time(tmp_path: Path) -> None:
    with holder(tmp_path) as other:
        assert not acquired(UserLock(tmp_path, patience=0.1))
        other.communicate("\n")
        assert acquired(UserLock(tmp_path, patience=0.1))
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_process_that_was_stopped_with_the_lock_is_waited_for_once(tmp_path: Path) -> None:
    with holder(tmp_path) as other:
        os.kill(other.pid, signal.SIGSTOP)
        lock = UserLock(tmp_path, patience=0.1)
        assert not acquired(lock)
        lock._patience = 3600.0  # a second wait would not end
        assert not acquired(lock)
        other.kill()
        other.wait()
        assert acquired(lock)
        assert lock._left == 3600.0


@pytest.mark.parametrize("trick", ["link", "hard link", "pipe", "directory", "another user's file"])
def test_what_lies_in_the_place_of_the_lock_is_not_used(tmp_path: Path, trick: str) -> None:
    lock, victim = UserLock(tmp_path), tmp_path / "victim"
    victim.write_text("precious")
    {
        "link": lambda: lock.file.symlink_to(victim),
        "hard link": lambda: os.link(victim, lock.file),
        "pipe": lambda: os.mkfifo(lock.file),
        "directory": lock.file.mkdir,
        "another user's file": lambda: _of_another_user(lock.file),
    }[trick]()
    assert not acquired(lock)
    assert victim.read_text() == "precious"


def _of_another_user(file: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    file.touch()
    os.chown(file, 1234, 1234)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS])
def test_a_disk_without_locks_stops_no_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    assert not acquired(UserLock(tmp_path))
    with (tmp_path / "ticket").open("w") as file:
        assert not lock_for_writing(file.fileno())
        assert not locked_for_writing(file.fileno())


def test_a_lock_for_writing_is_seen_by_all_and_ends_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "ticket"
    with path.open("w") as file, path.open() as reader:
        assert not locked_for_writing(reader.fileno())
        assert lock_for_writing(file.fileno())
        assert locked_for_writing(reader.fileno())
        assert not lock_for_writing(reader.fileno())
        file.close()
        assert not locked_for_writing(reader.fileno())
