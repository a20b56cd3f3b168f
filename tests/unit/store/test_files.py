from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from detbuild.controller.deletion import finish_deletions
from detbuild.errors import EngineError
from detbuild.store.files import file_errors, sweep_temporaries, write_output, write_synced
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


def test_an_output_into_a_pipe_leaves_the_pipe_what_it_is(tmp_path: Path) -> None:
    pipe, found = tmp_path / "pipe", list[bytes]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    write_output(pipe, b"page")
    reader.join()
    assert (found, pipe.is_fifo()) == ([b"page"], True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_an_output_into_a_device_leaves_the_device_what_it_is(tmp_path: Path) -> None:
    device = tmp_path / "null"
    os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    write_output(device, b"page")
    assert stat.S_ISCHR(device.stat().st_mode)
    assert sorted(tmp_path.iterdir()) == [device]


def test_an_output_under_a_link_is_written_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "page").write_bytes(b"old")
    (tmp_path / "link").symlink_to("page")
    write_output(tmp_path / "link", b"new")
    assert ((tmp_path / "page").read_bytes(), (tmp_path / "link").is_symlink()) == (b"new", True)


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(EngineError, match="loop"):
        write_output(tmp_path / "loop" / "page", b"")
    with pytest.raises(EngineError, match="cannot write"):
        write_output(tmp_path, b"")
