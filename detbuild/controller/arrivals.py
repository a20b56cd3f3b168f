"""Which checkpoints the runs of an experiment have written, as they write them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from detbuild.checkpoint.transfer import is_name
from detbuild.store.reader import RecordFile
from determined._records import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from detbuild.store.folder import ExperimentFolder
    from detbuild.store.state import ExperimentState, TrialState
    from detbuild.store.stored import Stored


@dataclass(slots=True)
class _Trial:
    runs_read: int = 0  # to the end
    file: RecordFile | None = None  # of the run after those
    written: list[str] = field(default_factory=list)  # uuids that may be on this host, oldest first


class Arrivals:
    """Looks only at trials that may still write, so many trials cost no more than those at work."""

    def __init__(self, folder: ExperimentFolder) -> None:
        self._folder = folder
        self._going: dict[int, _Trial] = {}
        self._spare: dict[int, _Trial] = {}  # of trials that have ended
        self._known = 0  # trials; their numbers are 1, 2, 3 ...

    def new(self, state: ExperimentState) -> Iterator[str]:
        """The checkpoints that were written since the last time, in the order of each trial."""
        while self._known + 1 in state.trials:
            self._known += 1
            self._going[self._known] = _Trial()
        for number, seen in list(self._going.items()):
            trial = state.trials[number]
            for uuid in self._of(trial, seen):
                seen.written.append(uuid)
                yield uuid
            if trial.ended and seen.runs_read == len(trial.runs):
                self._spare[number] = self._going.pop(number)

    def spare(self, root: Path, stored: Stored, held: AbstractSet[str]) -> str:
        """A checkpoint whose copy in `root` may go: it is in the cloud, and no run will start from it.

        The newest of a trial that goes on stays, and so do those that are `held` while any trial goes on.
        "" when there is none.
        """
        for number, seen in [*self._spare.items(), *self._going.items()]:
            seen.written = [uuid for uuid in seen.written if (root / uuid).is_dir()]
            newest = 1 if number in self._going else 0
            for uuid in seen.written[: len(seen.written) - newest]:
                if uuid in stored.uploaded and not (self._going and uuid in held):
                    return uuid
            if not seen.written:
                self._spare.pop(number, None)
        return ""

    def _of(self, trial: TrialState, seen: _Trial) -> Iterator[str]:
        for run in trial.runs[seen.runs_read :]:
            over = run.finished is not None
            if seen.file is None:
                folder = self._folder.run(trial.id, run.run)
                seen.file = RecordFile(folder.events, folder.name)
            for line in seen.file.rest() if over else seen.file.new():
                if isinstance(line.record, Checkpoint) and is_name(line.record.uuid):
                    yield line.record.uuid
            if not over:
                return
            seen.runs_read, seen.file = seen.runs_read + 1, None
