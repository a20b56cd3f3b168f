"""Which checkpoints the runs of an experiment have written, as they write them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from detbuild.checkpoint.transfer import is_name
from detbuild.store import journal
from detbuild.store.reader import RecordFile
from determined._records import Checkpoint
from determined._untrusted import UntrustedDir

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from detbuild.store.folder import ExperimentFolder
    from detbuild.store.stored import Stored

_Run = tuple[int, int]  # trial and run
_FETCHED: Final = 0  # no trial has this number


class CheckpointWatcher:
    """Reads only runs that may still write, so a search of many trials costs no more than those at work."""

    def __init__(self, folder: ExperimentFolder) -> None:
        self._folder = folder
        self._journal = journal.JournalFile(folder.journal_file)
        self._reading: dict[_Run, RecordFile] = {}
        self._over: set[_Run] = set()  # and not read to the end yet
        self._going: set[int] = set()  # trials that have begun and not ended
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
        """The checkpoints that were written since the last time, in the order of each trial."""
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
        """Take notice of a checkpoint that is on this host again, from whatever trial."""
        self._written.setdefault(_FETCHED, []).append(uuid)

    def evictable(self, root: Path, stored: Stored, held: AbstractSet[str]) -> str:
        """A checkpoint whose copy in `root` may go: it is in the cloud, and no run will start from it.

        The newest of a trial that goes on stays, and so do those that are `held`.
        "" when there is none.
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
