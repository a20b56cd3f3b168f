"""The records of one run, read from its `events.jsonl` while it grows; everything else there is rejected.

User code may write to the file, a crash may tear a line, a disk may flip bits: the reader continues and loses
no other line. Both reading and memory are bounded, so that an endless file costs no more than a long one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from determined._contract.records import (
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
    UnknownKindError,
    Validation,
    decode,
)
from determined._contract.run_info import EVENTS_FILE
from determined._contract.untrusted import UntrustedError, UntrustedMissingError, sized

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

    from detbuild.store.experiment_dir import RunFolder
    from determined._contract.records import Record

_ALL_KEPT: Final[Mapping[type, str]] = {
    Validation: "validations",
    Checkpoint: "checkpoints",
    CheckpointRejected: "rejected",
}
LONGEST_LINE = 16 << 20  # bytes; a longer line is rejected without being held in memory
_BLOCK = 1 << 20
_HELD = frozenset({Validation, Checkpoint, CheckpointRejected})  # readers hold all of these in memory
_METRICS = (Training, Validation, Measured)
_GROUPS = 1000  # metric groups whose progress is tracked
_UNKNOWN = 5  # unknown kinds that are listed
_KEPT = 100  # rejected spans, and gaps, that are listed


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
    rejected_records: int = 0  # spans of the file that are not records of the run
    unknown_kinds: tuple[str, ...] = ()  # of records of a newer harness, which are skipped
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
    return replace(
        records,
        rejected_records=file.parser.rejected,
        unknown_kinds=tuple(file.parser.unknown_kinds),
        unreadable=file.unreadable,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """Limits of reading one file, far above those of any genuine run."""

    size: int = 4 << 30  # bytes
    rejected: int = 100_000  # lines that are not records
    rejected_size: int = 256 << 20  # bytes of those
    held_size: int = 128 << 20  # bytes of the records that readers hold in memory


@dataclass(frozen=True, slots=True)
class RejectedSpan:
    """A span of the file that is not a record of this run."""

    offset: int
    size: int  # bytes
    why: str


class Sequence:
    """The sequence numbers seen so far: each is accepted once, in any order.

    A forged record with a huge number only opens a gap, which the genuine records that follow fill.
    """

    def __init__(self) -> None:
        self.last = 0
        self._gaps: list[tuple[int, int]] = []  # first and last missing number, the newest gap last

    @property
    def missing(self) -> int:
        return sum(last - first + 1 for first, last in self._gaps)

    def take(self, number: int) -> bool:
        """Add a number; return whether it is new."""
        if number > self.last:
            if number > self.last + 1:
                self._gaps = [*self._gaps[-_KEPT:], (self.last + 1, number - 1)]
            self.last = number
            return True
        for index, (first, last) in enumerate(self._gaps):
            if first <= number <= last:
                rest = ((first, number - 1), (number + 1, last))
                self._gaps[index : index + 1] = [gap for gap in rest if gap[0] <= gap[1]]
                return True
        return False


class RecordParser:
    """An incremental parser of records.

    `offset` is the file offset of the next byte, `rejected_spans` has the first hundred rejected spans,
    `rejected` is the number of all, and `held` the bytes of the records that readers hold in memory.
    `unknown_kinds` are kinds of skipped records, in the order of their first one.
    """

    def __init__(self, run: str) -> None:
        self.run = run
        self.offset = 0
        self.sequence = Sequence()
        self.rejected = 0
        self.held = 0
        self._rejected_size = 0
        self._blank = 0
        self.rejected_spans: list[RejectedSpan] = []
        self.unknown_kinds: list[str] = []
        self._started = False
        self._reached: dict[str, int] = {}  # batches, by the kind of a metric
        self._repeated: dict[str, int] = {}
        self._held = bytearray()
        self._line_start = 0
        self._overlong = False

    def feed(self, data: bytes) -> Iterator[Line]:
        """Yield the records that `data` completes."""
        *whole, rest = data.split(b"\n")
        place = self.offset
        self.offset += len(data)
        for piece in whole:
            place += len(piece) + 1
            line = self._line(piece) if self._held or self._overlong or len(piece) > LONGEST_LINE else piece
            parsed = self._ended(line, place - 1)
            if parsed is not None:
                yield parsed
        self._hold(rest)

    def excess(self, bounds: Bounds) -> str:
        """Return which bound is exceeded, in words; "" if none."""
        unended = self.offset - self._line_start if self._overlong else 0
        if max(self.rejected, self._blank) > bounds.rejected:
            return f"{bounds.rejected} lines that are not records"
        if self._rejected_size + unended > bounds.rejected_size:
            return f"{sized(bounds.rejected_size)} that are not records"
        if self.held > bounds.held_size:
            return f"{sized(bounds.held_size)} of validations and checkpoints"
        return sized(bounds.size) if self.offset >= bounds.size else ""

    def finish(self) -> Iterator[Line]:
        """Yield the last record if it has no newline, after the run has ended."""
        if self._held or self._overlong:
            parsed = self._ended(self._line(b""), self.offset)
            if parsed is not None:
                yield parsed

    def _hold(self, piece: bytes) -> None:
        if len(self._held) + len(piece) > LONGEST_LINE:
            self._overlong = True
            self._held.clear()
        if not self._overlong:
            self._held += piece

    def _line(self, end: bytes) -> bytes | None:
        """Return the line that ends with `end`; None if it is too long."""
        self._hold(end)
        line = None if self._overlong else bytes(self._held)
        self._held.clear()
        self._overlong = False
        return line

    def _ended(self, line: bytes | None, end: int) -> Line | None:
        """Return the record of a line that ends at this offset; None if it is not a record."""
        start, self._line_start = self._line_start, end + 1
        if line is None:
            self._reject(start, end - start, f"a line longer than {LONGEST_LINE} bytes")
        elif line and not line.isspace():
            return self._record(line, start)
        else:
            self._blank += 1
        return None

    def _record(self, line: bytes, start: int) -> Line | None:
        try:
            parsed = decode(line)
        except UnknownKindError as error:
            self._skip(error, start, len(line))
            return None
        except ValueError as error:
            self._reject(start, len(line), str(error))
            return None
        if parsed.run != self.run:
            self._reject(start, len(line), f"a record of run {parsed.run[:40]!r}")
        elif parsed.seq < 1 or not self.sequence.take(parsed.seq):
            self._reject(start, len(line), f"duplicate number {parsed.seq}")
        elif type(parsed.record) is Started and self._begins_again():
            self._reject(start, len(line), "the run was restarted; repeated records are skipped")
        elif not self._repeats(parsed.record):
            if type(parsed.record) in _HELD:
                self.held += len(line)
            return parsed
        return None

    def _skip(self, unknown: UnknownKindError, start: int, size: int) -> None:
        if unknown.run != self.run:
            self._reject(start, size, str(unknown))
        elif unknown.kind not in self.unknown_kinds and len(self.unknown_kinds) < _UNKNOWN:
            self.unknown_kinds.append(unknown.kind)

    def _begins_again(self) -> bool:
        """Whether this is a restart, after which metrics reported so far are repeated."""
        again, self._started = self._started, True
        if again:
            self._repeated = dict(self._reached)
        return again

    def _repeats(self, record: Record) -> bool:
        """Whether a restarted run reports a metric that it reported before."""
        if not isinstance(record, _METRICS):
            return False
        key = f"{record.kind} {record.group}" if isinstance(record, Measured) else record.kind
        steps = record.steps_completed
        if steps <= self._repeated.get(key, -1):
            return True
        if steps > self._reached.get(key, -1) and (len(self._reached) < _GROUPS or key in self._reached):
            self._reached[key] = steps
        return False

    def _reject(self, offset: int, size: int, why: str) -> None:
        self.rejected += 1
        self._rejected_size += size
        if len(self.rejected_spans) < _KEPT:
            self.rejected_spans.append(RejectedSpan(offset, size, why[:200]))


class RecordFile:
    """Reads the records of one run incrementally.

    `unreadable` is the reason if the file, or the part beyond a bound, cannot be read.
    """

    def __init__(self, folder: RunFolder, bounds: Bounds | None = None) -> None:
        self.parser = RecordParser(folder.name)
        self.unreadable = ""
        self._folder = folder
        self._bounds = bounds or Bounds()

    def new(self, most: int | None = None) -> Iterator[Line]:
        """Yield the records appended since the last call; none if there is no file.

        Args:
            most: Bytes to read at most, approximately; the next call continues.
        """
        end = None if most is None else self.parser.offset + most
        for data in self._blocks():
            yield from self.parser.feed(data)
            excess = self.parser.excess(self._bounds)
            if excess:
                self.unreadable = f"{self._folder.events} holds more than {excess}; the rest is ignored"
                self.parser.rejected += 1
                return
            if end is not None and self.parser.offset >= end:
                return

    def rest(self) -> Iterator[Line]:
        """Yield the rest after the run has ended, including a last line without a newline."""
        yield from self.new()
        yield from self.parser.finish()

    def _blocks(self) -> Iterator[bytes]:
        if self.parser.excess(self._bounds):
            return
        try:
            file = self._folder.files.open(EVENTS_FILE)
        except UntrustedMissingError:
            return
        except UntrustedError as error:
            self.unreadable = str(error)
            return
        with file:
            file.seek(self.parser.offset)
            while data := file.read(_BLOCK):
                yield data
