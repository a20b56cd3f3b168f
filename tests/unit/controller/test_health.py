"""A person who looks at an experiment is told why it does not go on, also when nobody can write it down."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from detbuild.controller.health import blocked_reason
from detbuild.controller.lease import lease
from tests.faults.training import rig

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_an_experiment_that_nobody_drives_says_how_to_go_on(tmp_path: Path) -> None:
    tried = rig(tmp_path)
    tried.controller().step()
    assert "`detbuild resume 1`" in blocked_reason(tried.folder, tried.state())
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
