"""Folds the journal to the state of each checkpoint: uploaded, deleted, partially deleted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from detbuild.store import journal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from determined._records import Checkpoint


@dataclass(kw_only=True, slots=True)
class Stored:
    """The storage state of all checkpoints, mutable because a search may have very many."""

    intended: set[str] = field(default_factory=set)  # upload intended: some files may be in the cloud
    begun: set[str] = field(default_factory=set)  # of these, those whose files in the cloud are ours
    foreign: dict[str, str] = field(default_factory=dict)  # uuid -> why it belongs to another experiment
    uploaded: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)  # uuid -> why it will never be uploaded
    deleted: set[str] = field(default_factory=set)
    pending_delete: set[str] = field(default_factory=set)  # deleted, but files may remain
    partly: dict[str, set[str]] = field(default_factory=dict)  # uuid -> deleted files
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
        """Whether an upload or a removal is pending."""
        waiting = self.intended - self.uploaded - self.deleted - self.refused.keys() - self.foreign.keys()
        return bool(waiting or self.pending_delete or self.partial_pending_delete)

    def state(self, uuid: str, *, damaged: bool) -> str:
        """Return the state of a checkpoint in Determined's terms; `damaged` if a run found it so."""
        if uuid in self.foreign:
            return "ERROR"
        if uuid in self.deleted:
            return "DELETED"
        if uuid in self.partly:
            return "PARTIALLY_DELETED"
        if uuid in self.uploaded:
            return "COMPLETED"  # only a copy was damaged
        return "ERROR" if damaged or uuid in self.refused else "COMPLETED"

    def left(self, checkpoint: Checkpoint) -> Mapping[str, int]:
        """Return the files of a checkpoint and their sizes in bytes, without deleted ones."""
        gone = self.partly.get(checkpoint.uuid)
        if gone is None:
            return checkpoint.resources
        return {path: size for path, size in checkpoint.resources.items() if path not in gone}
