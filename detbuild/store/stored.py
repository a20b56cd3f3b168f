"""From the facts of a journal to what became of each checkpoint: in the cloud, deleted, deleted in part."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from detbuild.store import journal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from determined._records import Checkpoint


@dataclass(kw_only=True, slots=True)
class Stored:
    """Grows with the journal: a search may have very many checkpoints, so it is not copied for each."""

    intended: set[str] = field(default_factory=set)  # to the cloud: some of it may be there
    begun: set[str] = field(default_factory=set)  # of these: what is in the cloud is ours
    foreign: dict[str, str] = field(default_factory=dict)  # uuid -> why it is not this experiment's
    uploaded: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)  # uuid -> why it will never be in the cloud
    deleted: set[str] = field(default_factory=set)
    pending_delete: set[str] = field(default_factory=set)  # deleted, and files of it may be left
    partly: dict[str, set[str]] = field(default_factory=dict)  # uuid -> files that were deleted
    partial_pending_delete: set[str] = field(default_factory=set)  # uuids
    trouble: str = ""  # why nothing can be stored or removed now

    @classmethod
    def of(cls, facts: Iterable[journal.Fact]) -> Stored:
        stored = cls()
        for fact in facts:
            stored.add(fact)
        return stored

    def add(self, fact: journal.Fact) -> None:
        match fact:
            case journal.UploadIntended() | journal.CheckpointUploaded() | journal.UploadRejected():
                self._add_upload(fact)
            case journal.CheckpointForeign(uuid=uuid, why=why):
                self.foreign[uuid] = why
                self.pending_delete.discard(uuid)
                self.partial_pending_delete.discard(uuid)
            case journal.CheckpointsDeleted(uuids=uuids):
                self.deleted.update(uuids)
                self.pending_delete.update(uuids)
            case journal.CheckpointsRemoved(uuids=uuids):
                self.pending_delete.difference_update(uuids)
            case journal.FilesDeleted(uuid=uuid, paths=paths):
                self.partly.setdefault(uuid, set()).update(paths)
                self.partial_pending_delete.add(uuid)
            case journal.FilesRemoved(uuid=uuid):
                self.partial_pending_delete.discard(uuid)
            case journal.StorageBlocked(why=why):
                self.trouble = why

    def _add_upload(
        self, fact: journal.UploadIntended | journal.CheckpointUploaded | journal.UploadRejected
    ) -> None:
        match fact:
            case journal.UploadIntended(uuid=uuid, free=free):
                self.intended.add(uuid)
                if free is not False:
                    self.begun.add(uuid)
            case journal.CheckpointUploaded(uuid=uuid):
                self.uploaded.add(uuid)
            case journal.UploadRejected(uuid=uuid, why=why):
                self.refused[uuid] = why

    @property
    def has_pending(self) -> bool:
        """Something is still to be uploaded, or to be removed."""
        waiting = self.intended - self.uploaded - self.deleted - self.refused.keys() - self.foreign.keys()
        return bool(waiting or self.pending_delete or self.partial_pending_delete)

    def state(self, uuid: str, *, damaged: bool) -> str:
        """Determined's word for how it is.

        Args:
            uuid: Of a checkpoint.
            damaged: A run found it so.
        """
        if uuid in self.foreign:
            return "ERROR"
        if uuid in self.deleted:
            return "DELETED"
        if uuid in self.partly:
            return "PARTIALLY_DELETED"
        if uuid in self.uploaded:
            return "COMPLETED"  # what was damaged is a copy
        return "ERROR" if damaged or uuid in self.refused else "COMPLETED"

    def left(self, checkpoint: Checkpoint) -> Mapping[str, int]:
        """Its files and their sizes in bytes, without those that were deleted."""
        gone = self.partly.get(checkpoint.uuid)
        if gone is None:
            return checkpoint.resources
        return {path: size for path, size in checkpoint.resources.items() if path not in gone}
