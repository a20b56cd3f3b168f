"""What one run has told so far, gathered from its records."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from detbuild.store.reader import RecordFile
from determined._records import (
    Checkpoint,
    CheckpointRejected,
    Ended,
    Exited,
    Line,
    Measured,
    Progress,
    Restored,
    Stage,
    StageEntered,
    Started,
    Training,
    Validation,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from detbuild.store.folder import RunFolder


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecords:
    """Everything but the training metrics, of which only the newest are kept: they may be millions."""

    started: bool = False
    stage: Stage | None = None
    fraction: float | None = None
    training: Training | None = None
    validations: tuple[Validation, ...] = ()
    checkpoints: tuple[Checkpoint, ...] = ()
    restored: Restored | None = None
    rejected: tuple[CheckpointRejected, ...] = ()
    ended: Ended | None = None
    exited: Exited | None = None
    set_aside: int = 0  # stretches of the file that were no records of the run

    @property
    def trained(self) -> bool:
        """Whether it got as far as reporting anything of its own."""
        return bool(self.training or self.validations or self.checkpoints)

    @property
    def steps_completed(self) -> int | None:
        newest = (self.training, self.restored, *self.validations[-1:], *self.checkpoints[-1:])
        return max((record.steps_completed for record in newest if record), default=None)


def extended(records: RunRecords, lines: Iterable[Line]) -> RunRecords:
    """The records with more lines of the same run."""
    for line in lines:
        records = _with(records, line)
    return records


def _with(records: RunRecords, line: Line) -> RunRecords:
    match line.record:
        case Validation() as validation:
            return replace(records, validations=(*records.validations, validation))
        case Checkpoint() as checkpoint:
            return replace(records, checkpoints=(*records.checkpoints, checkpoint))
        case CheckpointRejected() as rejected:
            return replace(records, rejected=(*records.rejected, rejected))
        case Training() as training:
            return replace(records, training=training)
        case Progress(fraction):
            return replace(records, fraction=fraction)
        case milestone:
            return _past(records, milestone)


def _past(
    records: RunRecords, milestone: Started | StageEntered | Restored | Measured | Ended | Exited
) -> RunRecords:
    match milestone:
        case Measured():
            return records  # a group of a script's own: shown as it comes
        case Started():
            return replace(records, started=True)
        case StageEntered(stage):
            return replace(records, stage=stage)
        case Restored():
            return replace(records, restored=milestone)
        case Ended():
            return replace(records, ended=milestone)
        case Exited():
            return replace(records, exited=milestone)


def read_run(folder: RunFolder, *, over: bool) -> RunRecords:
    """Read the whole file; a last line without its newline counts only when the run is `over`."""
    file = RecordFile(folder.events, folder.name)
    records = extended(RunRecords(), file.rest() if over else file.new())
    return replace(records, set_aside=file.parser.rejected)
