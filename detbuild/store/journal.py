"""The write-ahead journal of one experiment, and the queue of user requests to it.

Decisions and intents are synced before they are acted on. The queue is an append-only file that the
controller reads: a request is synced before it is applied, and the journal records which were applied.
"""

from __future__ import annotations

import os
import re
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, Final

from detbuild import codec
from detbuild.store.files import LineFile, alone, append_synced
from determined._contract.untrusted import UntrustedDir, UntrustedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

_NUMBER = re.compile(rb',"n":(\d{1,18})\}\n')
_LARGEST = 1 << 30  # bytes
_TAIL = 64  # bytes at the end of a journal that contain the number of its last line
_MOST_DAMAGE = 100  # damaged places that are listed
_LONGEST_WHY = 200
_LAST = 1 << 63  # seconds since the epoch, above any time


class Verb(str, Enum):
    """What a person requests of an experiment or of one of its trials."""

    KILL = "kill"
    CANCEL = "cancel"
    PAUSE = "pause"
    ACTIVATE = "activate"
    CONTINUE = "continue"

    __str__ = str.__str__
    __hash__ = str.__hash__


@dataclass(frozen=True, kw_only=True, slots=True)
class Searched:
    """An event that the search method received and its decision, in one line so that both are atomic.

    Both are in the format of `detbuild.search.method.to_json`.
    """

    kind: ClassVar[str] = "searched"
    event: Mapping[str, object]
    actions: tuple[Mapping[str, object], ...] = ()
    steps_completed: int = -1  # of the reported validation
    progress: float = 0.0  # of the search after the event, 0..1
    share: float = 0.0  # of one trial in the progress; 0 if trials differ
    sources: Mapping[str, Sequence[str]] = field(default_factory=dict)  # new trial: its parent's checkpoints


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchFailed:
    """The search method failed; its running trials checkpoint and end."""

    kind: ClassVar[str] = "search_failed"
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialCreated:
    """The only trial of an experiment, in old journals without searches."""

    kind: ClassVar[str] = "trial_created"
    trial_id: int
    seed: int
    hparams: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunIntended:
    """The run's folder exists and its container is about to be created."""

    kind: ClassVar[str] = "run_intended"
    trial_id: int
    run: int
    segment: int = 1  # how many training lengths the search had requested


@dataclass(frozen=True, kw_only=True, slots=True)
class RunCreated:
    """The container exists and is about to be started; if it is missing later, it was removed."""

    kind: ClassVar[str] = "run_created"
    trial_id: int
    run: int
    container: str  # "" for a run on the host itself
    gpu_ids: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFinished:
    """The run has ended, with its classification."""

    kind: ClassVar[str] = "run_finished"
    trial_id: int
    run: int
    outcome: str  # of detbuild.runtime.outcome.Outcome
    counts: bool = False  # against max_restarts
    retry: bool = False
    asked: str = ""  # the stop request it ended for: kill, cancel, pause, or search
    exit_code: int | None = None
    signal: str | None = None
    message: str = ""
    hint: str = ""
    tail: tuple[str, ...] = ()  # the last lines of output
    failure: str = ""  # type and line of the error, if the same code would raise it again
    steps_completed: int = 0  # batches reported by the run


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """The trial waits, with the reason; an empty reason ends the wait."""

    kind: ClassVar[str] = "waiting"
    trial_id: int
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyMatched:
    """A line of the run's output matched one of `log_policies`."""

    kind: ClassVar[str] = "policy_matched"
    trial_id: int
    run: int
    name: str
    cancels_retries: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestApplied:
    """A user request was accepted by the controller."""

    kind: ClassVar[str] = "request_applied"
    number: int  # of the request
    verb: str
    trial_id: int | None = None  # None: all trials
    length: Mapping[str, object] | None = None  # new length of a `continue`: {"unit", "count"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Paused:
    """The experiment is paused: only its files are left, and no controller runs until a request."""

    kind: ClassVar[str] = "paused"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialFinished:
    kind: ClassVar[str] = "trial_finished"
    trial_id: int
    state: str
    why: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExperimentFinished:
    kind: ClassVar[str] = "experiment_finished"
    state: str
    why: str = ""


# Facts about checkpoints.


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadIntended:
    """The checkpoint is complete and is about to be uploaded, its manifest last."""

    kind: ClassVar[str] = "upload_intended"
    uuid: str
    # Whether the name was unused in the bucket, so that files there now are ours. None: written by a version
    # without this check.
    free: bool | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointUploaded:
    """The checkpoint is complete in the cloud; the copy on this host may be removed."""

    kind: ClassVar[str] = "checkpoint_uploaded"
    uuid: str


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadRejected:
    """The checkpoint is damaged on this host, so it will never be uploaded."""

    kind: ClassVar[str] = "upload_rejected"
    uuid: str
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointForeign:
    """A run reported it, but it belongs to another experiment: it is neither uploaded nor removed."""

    kind: ClassVar[str] = "checkpoint_foreign"
    uuid: str
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointsDeleted:
    """The checkpoints are deleted; their files are about to be removed."""

    kind: ClassVar[str] = "checkpoints_deleted"
    uuids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointsRemoved:
    """The files of deleted checkpoints were removed."""

    kind: ClassVar[str] = "checkpoints_removed"
    uuids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class FilesDeleted:
    """These files are deleted from the checkpoint and are about to be removed."""

    kind: ClassVar[str] = "files_deleted"
    uuid: str
    paths: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class FilesRemoved:
    """The deleted files of a checkpoint were removed."""

    kind: ClassVar[str] = "files_removed"
    uuid: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StorageBlocked:
    """Checkpoints cannot be stored or removed, with the reason; an empty reason ends it."""

    kind: ClassVar[str] = "storage_blocked"
    why: str


StorageFact = (
    UploadIntended
    | CheckpointUploaded
    | UploadRejected
    | CheckpointForeign
    | CheckpointsDeleted
    | CheckpointsRemoved
    | FilesDeleted
    | FilesRemoved
    | StorageBlocked
)
TrialFact = TrialCreated | RunIntended | RunCreated | RunFinished | Waiting | PolicyMatched | TrialFinished
Fact = TrialFact | StorageFact | Searched | SearchFailed | RequestApplied | Paused | ExperimentFinished
_KINDS: Final[Mapping[str, Callable[..., Fact]]] = codec.kinds(Fact)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the journal. `time`, in seconds since the epoch, is for display; lines are in order."""

    time: float
    fact: Fact


def append(path: Path, entry: Entry) -> None:
    """Append an entry with the next number, synced to disk."""
    append_synced(path, encode(entry, number=_next_number(path)))


def encode(entry: Entry, *, number: int = 0) -> bytes:
    """Encode an entry as a line of JSON with its newline.

    Args:
        number: Line number from 1, which detects missing and duplicate lines; 0 for none.
    """
    body = {"time": entry.time, **codec.to_json(entry.fact)}
    return codec.line({**body, "n": number} if number else body)


def decode(line: bytes) -> Entry:
    """Decode a line of `encode`; raise ValueError if it is invalid."""
    return _numbered(line)[1]


def _numbered(line: bytes) -> tuple[int, Entry]:
    """Return the number of a line, 0 if it has none, and its entry."""
    try:
        raw = codec.parsed(line)
        number, entry = raw.pop("n", 0), Entry(_time(raw), codec.from_kind(_KINDS, raw))
    except ValueError as error:
        raise ValueError(f"not a journal entry: {error!r}"[:_LONGEST_WHY]) from error
    if type(number) is not int:
        raise ValueError("not a journal entry: invalid number")
    return number, entry


def _time(raw: Mapping[str, object]) -> float:
    time = raw.get("time")
    if isinstance(time, bool) or not isinstance(time, (int, float)) or not abs(time) < _LAST:
        raise ValueError("invalid time")
    return float(time)


def _next_number(path: Path) -> int:
    """Return the number after the last complete line; old lines without a number count too."""
    try:
        file = UntrustedDir(path.parent).open(path.name, limit=_LARGEST)
    except UntrustedError:
        return 1  # no journal yet; writing it reports other errors
    with file:
        end = file.seek(0, os.SEEK_END)
        for block in (_TAIL, end):  # the last bytes are nearly always enough
            file.seek(max(0, end - block))
            data = file.read()
            for last in deque(_NUMBER.finditer(data), maxlen=1):
                return int(last[1]) + data.count(b"\n", last.end()) + 1
    return data.count(b"\n") + 1


def replay(path: Path) -> tuple[Entry, ...]:
    """Read all complete entries.

    A torn last line is ignored, since it was never acted on. Other invalid lines are skipped: one bad disk
    block loses one line.
    """
    return tuple(JournalFile(path).new())


class JournalFile:
    """Reads a journal incrementally; `damage` has a message for each damaged place."""

    def __init__(self, path: Path) -> None:
        self.damage: list[str] = []
        self._path = path
        self._lines = LineFile(path)
        self._line = 0  # number of lines read
        self._number = 0  # highest line number
        self._spoilt = 0  # invalid lines since then
        self._seen: set[int] = set()

    def new(self) -> Iterator[Entry]:
        """Yield the entries appended since the last call; none if there is no journal."""
        for line in self._lines.new():
            self._line += 1
            try:
                number, entry = _numbered(line)
            except ValueError as error:
                self._spoilt += 1
                self._damaged(str(error))
                continue
            if not number or self._is_new(number, line):
                yield entry

    def _is_new(self, number: int, line: bytes) -> bool:
        """Whether the line is not a copy of an earlier one; report a gap before it."""
        key, expected = hash(line), self._number + 1 + self._spoilt
        if number <= self._number:
            is_copy = key in self._seen
            self._damaged(f"repeats number {number}" if is_copy else f"is out of order, with number {number}")
            return not is_copy
        if self._number and number > expected:
            self._damaged(f"{number - expected} lines are missing before it")
        elif not self._number and number > self._line:
            self._damaged(f"{number - self._line} lines are missing before it")
        self._number, self._spoilt = number, 0
        self._seen.add(key)
        return True

    def _damaged(self, why: str) -> None:
        if len(self.damage) < _MOST_DAMAGE:
            self.damage.append(f"{self._path}, line {self._line}: {why}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    number: int  # 1, 2, 3 ... in the order of application
    verb: Verb
    trial_id: int | None = None  # None: all trials
    config: Mapping[str, object] | None = None  # the resolved new config of a `continue`


class Inbox:
    """The requests of one experiment."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = LineFile(path)

    def put(
        self, verb: Verb, *, trial_id: int | None = None, config: Mapping[str, object] | None = None
    ) -> int:
        """Add a request, synced to disk, and return its number.

        Raises:
            DiskFullError: The disk is full.
            EngineError: The file cannot be written.
        """
        with alone(self._path.with_suffix(".lock")):  # two requests at once must not get one number
            number = sum(1 for _ in LineFile(self._path).new()) + 1
            body = {"n": number, "verb": verb, "trial_id": trial_id, "config": config}
            append_synced(self._path, codec.line(body))
        return number

    def after(self, number: int) -> tuple[Request, ...]:
        """Return the requests after a number that were added since the last call."""
        requests = map(_parsed, self._lines.new())
        return tuple(request for request in requests if request and request.number > number)


def _parsed(line: bytes) -> Request | None:
    try:
        raw = codec.parsed(line)
        return codec.from_json(Request, {**raw, "number": raw.get("n")})
    except ValueError:
        return None  # a damaged line is ignored
