"""Reasons why an experiment is blocked that its journal cannot show."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from detbuild.controller.lease import holder
from detbuild.store.state import State, load
from determined._disk import NO_INODES, no_inodes

if TYPE_CHECKING:
    from pathlib import Path

    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.state import ExperimentState


def blocked_reason(folder: ExperimentFolder, state: ExperimentState) -> str:
    """Return why an experiment that should run is blocked, and how to repair that; "" if it is not."""
    if _at_rest(state):
        return ""
    if no_inodes(folder.path):
        return (
            f"{NO_INODES} on the disk of {folder.path}: nothing is decided or started until files are removed"
        )
    if _full(folder.path):
        return f"the disk of {folder.path} is full: nothing is decided or started until space is free"
    if holder(folder.lock_file) is None and not _at_rest(load(folder)):  # race: it may just have ended
        return f"no controller is running: detbuild resume {folder.id} (log: {folder.log_file})"
    return ""


def _at_rest(state: ExperimentState) -> bool:
    return state.over or state.state == State.PAUSED


def _full(path: Path) -> bool:
    found = os.statvfs(path)
    blocks = found.f_bavail if os.geteuid() else found.f_bfree
    return blocks == 0
