from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from detbuild.controller.deletion import finish_deletions
from detbuild.errors import EngineError
from detbuild.store.files import file_errors, sweep_temporaries, write_synced
from detbuild.store.home import Home

if TYPE_CHECKING:
    from pathlib import Path

_KILLED = """
import os, signal, sys
from pathlib import Path
from detbuild.store import files

def killed(_):
    files.os.fsync = lambda _: None
    os.kill(os.getpid(), getattr(signal, sys.argv[2]))

files.os.fsync = killed
files.write_synced(Path(sys.argv[1]), b"half")
"""


def _old(path: Path) -> None:
    os.utime(path, (0, 0))


def test_what_a_killed_writer_has_left_is_removed_from_the_home(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    for directory in home.directories:
        directory.mkdir(exist_ok=True)
        ended = subprocess.run([sys.executable, "-c", _KILLED, directory / "x.json", "SIGKILL"], check=False)
        assert ended.returncode == -signal.SIGKILL
    left = list(home.path.rglob("*.tmp"))
    assert len(left) == len(home.directories)
    assert finish_deletions(home) == ()
    assert list(home.path.rglob("*.tmp")) == left  # they are new: their writers may be about to lock them
    for path in left:
        _old(path)
    assert finish_deletions(home) == ()
    assert list(home.path.rglob("*.tmp")) == []


def test_a_temporary_in_use_and_the_files_of_others_stay(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _KILLED, tmp_path / "x.json", "SIGSTOP"]
    with subprocess.Popen(command) as writer:
        os.waitid(os.P_PID, writer.pid, os.WSTOPPED | os.WNOWAIT)
        (temporary,) = tmp_path.iterdir()
        for name in (".x.tmp", "x.1.tmp", ".x.1.tmp.txt"):
            (tmp_path / name).write_text("")
        (tmp_path / ".link.1.tmp").symlink_to(tmp_path / ".x.tmp")
        before = {*tmp_path.iterdir()}
        for path in before:
            _old(path)
        sweep_temporaries(tmp_path)
        assert {*tmp_path.iterdir()} == before
        writer.send_signal(signal.SIGCONT)
        assert writer.wait() == 0
    assert not temporary.exists()
    assert (tmp_path / "x.json").read_bytes() == b"half"


def test_a_writer_that_lives_is_not_disturbed(tmp_path: Path) -> None:
    write_synced(tmp_path / "a", b"1")
    sweep_temporaries(tmp_path)
    sweep_temporaries(tmp_path / "absent")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_an_error_without_a_text_has_a_cause(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"cannot write .*: OSError"), file_errors(tmp_path):
        raise OSError
