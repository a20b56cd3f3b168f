"""`Checkpoint`: one checkpoint of an experiment, its files and its metadata."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from detbuild.api import documents
from detbuild.checkpoint.find import best_first, files_of, find_checkpoint, goal_of
from detbuild.checkpoint.find import checkpoints_of as find_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from detbuild.api.connection import Connection
    from detbuild.api.documents import Document
    from detbuild.checkpoint.find import Found
    from detbuild.store.experiment_dir import ExperimentFolder, Goal
    from determined._contract.records import Line

__all__ = ["Checkpoint", "best_first", "find", "find_all", "goal_of", "of_folder", "ranked"]
Metadata = dict[str, object]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that a run reported, as it was found on this host and in the cloud."""

    connection: Connection
    found: Found

    @property
    def uuid(self) -> str:
        return self.found.checkpoint.uuid

    @property
    def folder(self) -> ExperimentFolder:
        """The folder of the experiment whose run reported it."""
        return self.connection.home.folder(self.found.experiment_id)

    @property
    def metrics(self) -> Mapping[str, object]:
        """Metrics of the validation at its batch; empty if there was none."""
        validation = self.found.checkpoint.validation
        return validation.metrics if validation else {}

    def goal(self) -> Goal:
        """Return the searcher's metric of its experiment, and its direction."""
        return goal_of(self.folder.header())

    def document(self) -> Document:
        """Return one element of `detbuild checkpoint list --json`."""
        return documents.checkpoint(self.found)

    def contents(self) -> Mapping[str, int]:
        """Return the path and the bytes of each of its files, without deleted ones."""
        return files_of(self.connection.home, self.found)

    def damage(self) -> list[str]:
        """Verify it; return one problem per damaged file."""
        from detbuild.checkpoint.download import damage

        return damage(self.found)

    def raise_damage(self, problems: Sequence[str]) -> None:
        """Raise EngineError if there are problems with the copy on this host."""
        from detbuild.checkpoint.download import raise_damage

        if self.found.directory:
            raise_damage(self.found, problems)

    def download(self, target: Path) -> None:
        """Copy and verify it into the new or empty directory `target`.

        Raises:
            ConfigError: `target` already exists.
            EngineError: It is damaged or deleted, or cannot be copied.
        """
        from detbuild.checkpoint.download import download

        download(self.found, target)

    def metadata(self) -> Mapping[str, object]:
        """Return its metadata with later changes."""
        from detbuild.store.annotations import metadata_of

        return metadata_of(self.folder.path, self.uuid, self._stored)

    def change_metadata(self, change: Callable[[Mapping[str, object]], Metadata]) -> Mapping[str, object]:
        """Apply `change` to its metadata, next to the stored files, and return the result."""
        from detbuild.store.annotations import change_metadata

        return change_metadata(self.folder.path, self.uuid, self._stored, change)

    @property
    def reported(self) -> float | None:
        """When it was reported, in seconds since the epoch; None if the record is lost."""
        return self._line.time if self._line else None

    @property
    def _stored(self) -> Mapping[str, object]:
        record = self._line.record if self._line else None
        return dict(getattr(record, "metadata", {}))

    @cached_property
    def _line(self) -> Line | None:
        """The record of its run."""
        from detbuild.store.records import RecordFile

        run = self.folder.run(self.found.trial_id, self.found.checkpoint.run)
        return next(
            (one for one in RecordFile(run).rest() if getattr(one.record, "uuid", "") == self.uuid), None
        )


def find(connection: Connection, uuid: str) -> Checkpoint:
    """Find a checkpoint of any experiment by its UUID or a unique prefix of it."""
    return Checkpoint(connection, find_checkpoint(connection.home, uuid))


def of_folder(connection: Connection, folder: ExperimentFolder) -> list[Checkpoint]:
    """Return all checkpoints of an experiment, by trial and newest first."""
    return [Checkpoint(connection, one) for one in find_all(folder)]


def ranked(checkpoints: Iterable[Checkpoint], goal: Goal) -> list[Checkpoint]:
    """Return the complete ones that have the metric, best first."""
    by_found = {id(one.found): one for one in checkpoints}
    return [by_found[id(one)] for one in best_first([one.found for one in by_found.values()], goal)]
