"""Markers of deletions in progress, so that a later process can finish them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from detbuild.store.files import write_synced
from detbuild.store.folder import changed_at

if TYPE_CHECKING:
    from pathlib import Path

    from detbuild.store.folder import ExperimentFolder
    from detbuild.store.home import Home

_INTENT: Final = "deleting"
_HIDDEN: Final = ".deleted-"


def mark_deleting(folder: ExperimentFolder) -> None:
    """Mark the experiment as being deleted, synced to disk; the deletion cannot be undone after this."""
    write_synced(folder.path / _INTENT, b"")


def is_deleting(folder: ExperimentFolder) -> bool:
    """Whether the experiment is being deleted, so that no controller may be started for it."""
    return changed_at(folder.path / _INTENT) != 0


def hidden_name(home: Home, folder: ExperimentFolder) -> Path:
    """Return the name of the folder after the experiment was deleted from listings."""
    return home.experiments / f"{_HIDDEN}{folder.id}"


def unfinished_deletions(home: Home) -> tuple[tuple[ExperimentFolder, ...], tuple[Path, ...]]:
    """Return the marked experiments, and the hidden folders that only have to be removed."""
    folders = (home.folder(number) for number in home.ids())
    hidden = home.experiments.glob(f"{_HIDDEN}*")  # allowed: names that the host chose
    return tuple(filter(is_deleting, folders)), tuple(hidden)
