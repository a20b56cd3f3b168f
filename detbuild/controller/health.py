"""What keeps an experiment from going on that its journal cannot tell: looked for by whoever shows it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from detbuild.controller.lease import holder
from detbuild.store.state import load
from detbuild.store.states import State
from determined._disk import NO_INODES, no_inodes

if TYPE_CHECKING:
    from pathlib import Path

    from detbuild.store.folder import ExperimentFolder
    from detbuild.store.state import ExperimentState


def blocked_reason(folder: ExperimentFolder, state: ExperimentState) -> str:
    """Say what is in the way of an experiment that should go on, and how to repair it; "" for nothing."""
    if _at_rest(state):
        return ""
    if no_inodes(folder.path):
        return (
            f"{NO_INODES} on the disk of {folder.path}: nothing is decided or started until files are removed"
        )
    if _full(folder.path):
        return f"the disk of {folder.path} is full: nothing is decided or started until there is room"
    if holder(folder.lock_file) is None and not _at_rest(load(folder)):  # it may just have ended
        return (
            f"no controller is running: `detbuild resume {folder.id}` starts one; {folder.log_file} says more"
        )
    return ""


def _at_rest(state: ExperimentState) -> bool:
    return state.over or state.state == State.PAUSED


def _full(place: Path) -> bool:
    found = os.statvfs(place)
    blocks = found.f_bavail if os.geteuid() else found.f_bfree
    return blocks == 0
