"""The collected records of one run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

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
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

    from detbuild.store.folder import RunFolder
    from determined._records import Record


_ALL_KEPT: Final[Mapping[type, str]] = {
    Validation: "validations",
    Checkpoint: "checkpoints",
    CheckpointRejected: "rejected",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecords:
    """The records of one run, with only the newest training metrics, since there may be millions."""

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
    set_aside: int = 0  # spans of the file that are not records of the run
    unreadable: str = ""  # why the file, or the part beyond a bound, could not be read

    @property
    def trained(self) -> bool:
        """Whether it reported any result of its own."""
        return bool(self.training or self.validations or self.checkpoints)

    @property
    def steps_completed(self) -> int | None:
        newest = (self.training, self.restored, *self.validations[-1:], *self.checkpoints[-1:])
        return max((record.steps_completed for record in newest if record), default=None)


def extended(records: RunRecords, lines: Iterable[Line]) -> RunRecords:
    """Add lines of the same run to its records."""
    newest: dict[type, Record] = {}
    kept: dict[type, list[Record]] = {kind: [] for kind in _ALL_KEPT}
    for line in lines:
        record = line.record
        kind = type(record)
        newest[kind] = record
        if kind in kept:
            kept[kind].append(record)
    values: dict[str, Any] = dict(_newest(newest.values()))
    for kind, name in _ALL_KEPT.items():
        values[name] = (*getattr(records, name), *kept[kind])
    return replace(records, **values)


def _newest(records: Iterable[Record]) -> Iterator[tuple[str, object]]:
    """Yield the fields that the newest record of each kind changes."""
    for record in records:
        match record:
            case Started():
                yield "started", True
            case StageEntered(stage):
                yield "stage", stage
            case Progress(fraction):
                yield "fraction", fraction
            case Training() | Restored() | Ended() | Exited():
                yield record.kind, record
            case Validation() | Checkpoint() | CheckpointRejected() | Measured():
                continue  # all of these are kept, or none (`Measured`, which is only shown live)


def read_run(
    folder: RunFolder, *, over: bool, along: Callable[[Iterator[Line]], Iterable[Line]] = iter
) -> RunRecords:
    """Read the whole file; a last line without a newline counts only if the run is `over`.

    Args:
        over: Whether the run has ended.
        along: Receives and forwards each line, so that the caller need not read the file again.
    """
    file = RecordFile(folder)
    records = extended(RunRecords(), along(file.rest() if over else file.new()))
    return replace(records, set_aside=file.parser.rejected, unreadable=file.unreadable)
