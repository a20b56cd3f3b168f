"""The marks that a deletion leaves on its way, so that whoever comes next can tell what is to be finished."""

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
    """From here on the deletion only goes forward; it is on disk when this returns."""
    write_synced(folder.path / _INTENT, b"")


def is_deleting(folder: ExperimentFolder) -> bool:
    """Whether the experiment is being deleted: nobody may take it up again."""
    return changed_at(folder.path / _INTENT) != 0


def hidden_name(home: Home, folder: ExperimentFolder) -> Path:
    """What the folder is called once it is no experiment any more."""
    return home.experiments / f"{_HIDDEN}{folder.id}"


def unfinished_deletions(home: Home) -> tuple[tuple[ExperimentFolder, ...], tuple[Path, ...]]:
    """The experiments that are marked, and the folders that only have to be removed."""
    folders = (home.folder(number) for number in home.ids())
    hidden = home.experiments.glob(f"{_HIDDEN}*")  # allowed: names that the host chose
    return tuple(filter(is_deleting, folders)), tuple(hidden)
