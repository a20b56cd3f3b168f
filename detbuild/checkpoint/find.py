"""Finds the checkpoints of experiments: what the runs told of them, and where they are on this host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from detbuild.errors import ConfigError
from detbuild.store.state import load
from detbuild.store.storage import storage_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from detbuild.store.folder import ExperimentFolder
    from detbuild.store.home import Home
    from detbuild.store.progress import CheckpointState


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A checkpoint that a run announced."""

    experiment_id: int
    trial_id: int
    checkpoint: CheckpointState
    directory: Path | None  # None: it is not on this host, or was deleted

    @property
    def state(self) -> str:
        """COMPLETED, ERROR (a run found it damaged) or DELETED."""
        return self.checkpoint.state if self.directory else "DELETED"


def checkpoints_of(folder: ExperimentFolder) -> tuple[Found, ...]:
    """All checkpoints of an experiment, by trial and newest first."""
    on_host = storage_of(folder).on_host
    return tuple(
        Found(
            experiment_id=folder.id,
            trial_id=trial.id,
            checkpoint=checkpoint,
            directory=_directory(on_host, checkpoint.uuid),
        )
        for trial in load(folder).trials.values()
        for checkpoint in trial.progress.checkpoints
    )


def find_checkpoint(home: Home, uuid: str) -> Found:
    """The checkpoint of this uuid, or of the only one that begins with it, in whatever experiment.

    Raises:
        ConfigError: There is none, or more than one.
    """
    found = []
    for each in _all(home) if uuid else ():
        if each.checkpoint.uuid == uuid:
            return each
        found += [each] if each.checkpoint.uuid.startswith(uuid) else []
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(each.checkpoint.uuid for each in found[:5])
        raise ConfigError(f"{uuid} begins the names of several checkpoints: {names}", mend="give more of it")
    raise ConfigError(f"there is no checkpoint {uuid!r}", mend="see `detbuild checkpoint list EXPERIMENT`")


def _all(home: Home) -> Iterator[Found]:
    for number in reversed(home.ids()):
        folder = home.folder(number)
        if folder.exists:
            yield from checkpoints_of(folder)


def _directory(on_host: Path | None, uuid: str) -> Path | None:
    directory = on_host / uuid if on_host else None
    return directory if directory and directory.is_dir() else None
