"""Finds the checkpoints that the runs of an experiment write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from detbuild.checkpoint.transfer import is_name
from detbuild.store import journal
from detbuild.store.records import RecordFile
from determined._records import Checkpoint
from determined._untrusted import UntrustedDir

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.state import Stored

_Run = tuple[int, int]  # trial and run
_FETCHED: Final = 0  # not a trial ID


class CheckpointWatcher:
    """A reader of new checkpoints; it reads only runs that may still write, so long searches stay cheap."""

    def __init__(self, folder: ExperimentFolder) -> None:
        self._folder = folder
        self._journal = journal.JournalFile(folder.journal_file)
        self._reading: dict[_Run, RecordFile] = {}
        self._over: set[_Run] = set()  # ended, but not read to the end yet
        self._going: set[int] = set()  # trials that have started and not ended
        self._written: dict[int, list[str]] = {}  # by trial: uuids that may be on this host, oldest first

    def _apply(self, fact: journal.Fact) -> None:
        match fact:
            case journal.RunIntended(trial_id=trial_id, run=run):
                self._reading.setdefault((trial_id, run), RecordFile(self._folder.run(trial_id, run)))
                self._going.add(trial_id)
            case journal.RunFinished(trial_id=trial_id, run=run):
                self._over.add((trial_id, run))
            case journal.TrialFinished(trial_id=trial_id):
                self._going.discard(trial_id)

    def new(self) -> Iterator[str]:
        """Yield the checkpoints written since the last call, in order for each trial."""
        for entry in self._journal.new():
            self._apply(entry.fact)
        for key, file in list(self._reading.items()):
            over = key in self._over
            for line in file.rest() if over else file.new():
                if isinstance(line.record, Checkpoint) and is_name(line.record.uuid):
                    self._written.setdefault(key[0], []).append(line.record.uuid)
                    yield line.record.uuid
            if over:
                del self._reading[key]
                self._over.discard(key)

    def fetched(self, uuid: str) -> None:
        """Note that a checkpoint, of any trial, is on this host again."""
        self._written.setdefault(_FETCHED, []).append(uuid)

    def evictable(self, root: Path, stored: Stored, held: AbstractSet[str]) -> str:
        """Return a checkpoint whose copy in `root` may be deleted, or "".

        It is uploaded, is not in `held`, and is not the newest of a trial that has not ended.
        """
        below = UntrustedDir(root)
        for number, written in list(self._written.items()):
            written[:] = [uuid for uuid in written if below.exists(uuid)]
            newest = 1 if number in self._going else 0
            for uuid in written[: len(written) - newest]:
                if uuid in stored.uploaded and uuid not in held:
                    return uuid
            if not written:
                del self._written[number]
        return ""
