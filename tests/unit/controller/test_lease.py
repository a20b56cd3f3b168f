"""A person who looks at an experiment is told why it does not go on, also when nobody can write it down."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from detbuild.controller.lease import Holder, blocked_reason, holder, lease, name_holder
from detbuild.errors import LeaseError
from tests.faults.training import rig

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_second_controller_is_refused_with_the_name_of_the_first(tmp_path: Path) -> None:
    file = tmp_path / "7" / "controller.lock"
    file.parent.mkdir()
    with lease(file):
        assert holder(file) == Holder(os.getpid(), socket.gethostname())
        with (
            pytest.raises(LeaseError, match=f"experiment 7 already has a controller: process {os.getpid()}"),
            lease(file, patience=0.05),
        ):
            pass
    assert holder(file) is None


def test_nobody_holds_what_was_never_held(tmp_path: Path) -> None:
    assert holder(tmp_path / "controller.lock") is None


def test_a_lease_dies_with_its_process(tmp_path: Path) -> None:
    file = tmp_path / "controller.lock"
    code = f"""
import time
from pathlib import Path
from detbuild.controller.lease import lease
with lease(Path({str(file)!r})):
    print("held", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert holder(file) == Holder(process.pid, socket.gethostname())
        process.send_signal(signal.SIGKILL)
    assert holder(file) is None
    with lease(file):
        pass


def test_a_child_that_inherits_the_descriptor_keeps_the_lease(tmp_path: Path) -> None:
    file = tmp_path / "controller.lock"
    with lease(file) as descriptor:
        child = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(descriptor,)
        )
    assert holder(file) is not None
    child.communicate(b"\n")
    assert holder(file) is None


def test_a_look_at_the_holder_does_not_keep_a_controller_away(tmp_path: Path) -> None:
    file = tmp_path / "controller.lock"
    with lease(file):
        pass
    with file.open("rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.2, fcntl.flock, (looking, fcntl.LOCK_UN)).start()
        with lease(file):
            pass


def test_a_process_that_only_looks_never_makes_a_controller_give_up(tmp_path: Path) -> None:
    file = tmp_path / "controller.lock"
    with lease(file):
        pass
    with file.open("rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.3, fcntl.flock, (looking, fcntl.LOCK_UN)).start()
        with lease(file, patience=0.0):
            pass


def test_a_lease_that_is_handed_over_is_held_without_a_gap(tmp_path: Path) -> None:
    file = tmp_path / "controller.lock"
    code = (
        "import sys\nfrom detbuild.controller.lease import inherited_lease\n"
        "with inherited_lease(int(sys.argv[1])):\n    input()\n"
    )
    with lease(file) as held:
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(held)], stdin=subprocess.PIPE, pass_fds=(held,)
        )
        name_holder(held, child.pid)
    # No moment is waited for: the child may not even have begun to run.
    assert holder(file) == Holder(child.pid, socket.gethostname())
    child.communicate(b"\n")
    assert child.returncode == 0
    assert holder(file) is None


def test_a_full_disk_takes_the_name_from_the_lease_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    file = tmp_path / "controller.lock"
    monkeypatch.setattr(os, "pwrite", full)
    with lease(file):
        assert holder(file) == Holder(0, "")
    assert holder(file) is None


def test_an_experiment_that_nobody_drives_says_how_to_go_on(tmp_path: Path) -> None:
    tried = rig(tmp_path)
    tried.controller().step()
    assert "detbuild resume 1" in blocked_reason(tried.folder, tried.state())
    with lease(tried.folder.lock_file):
        assert blocked_reason(tried.folder, tried.state()) == ""


def test_one_that_ended_while_it_was_read_is_not_missed(tmp_path: Path) -> None:
    tried = rig(tmp_path)
    tried.controller().step()
    before = tried.state()
    tried.run()
    assert blocked_reason(tried.folder, before) == ""


def test_a_full_disk_is_told_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = rig(tmp_path)
    full = list(os.statvfs(tmp_path))
    full[3] = full[4] = 0  # f_bfree, f_bavail
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(full))
    assert f"the disk of {tried.folder.path} is full" in blocked_reason(tried.folder, tried.state())


def test_what_is_over_or_paused_needs_nobody(tmp_path: Path) -> None:
    tried = rig(tmp_path)
    tried.folder.request("pause")
    tried.run()
    assert (tried.state().state, blocked_reason(tried.folder, tried.state())) == ("PAUSED", "")
    tried.folder.request("activate")
    assert tried.run().over
    assert blocked_reason(tried.folder, tried.state()) == ""
