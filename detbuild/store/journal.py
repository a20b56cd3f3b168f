"""The journal of one experiment: what was decided and what is about to be done, on disk before it is done."""

from __future__ import annotations

import json
import os
import re
from collections import deque
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, ClassVar, get_args

from detbuild.store.files import append_synced
from detbuild.store.lines import LineFile
from detbuild.store.typed import typed
from determined._untrusted import UntrustedDir, UntrustedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Searched:
    """What the search method was told, and what it decided: one line, so neither is there without the other.

    Both are as `detbuild.decisions.to_json` writes them.
    """

    kind: ClassVar[str] = "searched"
    event: Mapping[str, object]
    actions: tuple[Mapping[str, object], ...] = ()
    steps_completed: int = -1  # of the validation that it was told of
    progress: float = 0.0  # of the search, 0..1, after that
    share: float = 0.0  # what a trial adds to it; 0 where trials differ in that
    sources: Mapping[str, Sequence[str]] = field(
        default_factory=dict
    )  # new trial -> checkpoints of its parent


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchFailed:
    """The search method cannot go on; what it has started checkpoints and ends."""

    kind: ClassVar[str] = "search_failed"
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialCreated:
    """In journals of before there were searches: the one trial of an experiment."""

    kind: ClassVar[str] = "trial_created"
    trial_id: int
    seed: int
    hparams: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunIntended:
    """The run's folder is there and its container is about to be created."""

    kind: ClassVar[str] = "run_intended"
    trial_id: int
    run: int
    segment: int = 1  # how often the search had said how long to train


@dataclass(frozen=True, kw_only=True, slots=True)
class RunCreated:
    """The container is there and is about to be started; if it is missing later, somebody removed it."""

    kind: ClassVar[str] = "run_created"
    trial_id: int
    run: int
    container: str  # "" for a run on the host itself
    gpu_ids: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFinished:
    """The run is over, and what follows from that."""

    kind: ClassVar[str] = "run_finished"
    trial_id: int
    run: int
    outcome: str  # of detbuild.launch.failure.Outcome
    counts: bool = False  # against max_restarts
    retry: bool = False
    asked: str = ""  # what it was asked to end for: kill, cancel, pause, or search
    exit_code: int | None = None
    signal: str | None = None
    message: str = ""
    hint: str = ""
    tail: tuple[str, ...] = ()  # the last lines of output
    failure: str = ""  # type and line of the error, where the same code makes it again
    steps_completed: int = 0  # batches, by what the run reported


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """Nothing can be done for a while, and why; an empty text ends it."""

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
    """A request of a person is taken up; from now on it is the controller that sees to it."""

    kind: ClassVar[str] = "request_applied"
    number: int  # of the request
    verb: str
    trial_id: int | None = None  # None: all trials
    length: Mapping[str, object] | None = None  # of a `continue` that trains longer: {"unit", "count"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Paused:
    """Nothing of the experiment is left but its files, and no controller is needed until a person asks."""

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


# Of checkpoints: where they are kept, and which are no longer.


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadIntended:
    """The checkpoint is whole and is about to be copied to the cloud, its manifest last."""

    kind: ClassVar[str] = "upload_intended"
    uuid: str
    # Whether the name was free in the bucket, so that what is there by now is ours. None: a version without
    # this check has written it.
    free: bool | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointUploaded:
    """It is whole in the cloud; the copy on this host may go."""

    kind: ClassVar[str] = "checkpoint_uploaded"
    uuid: str


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadRejected:
    """It is not whole on this host, so it will never be in the cloud."""

    kind: ClassVar[str] = "upload_rejected"
    uuid: str
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointForeign:
    """A run has announced it, but it belongs to another experiment: it is neither uploaded nor removed."""

    kind: ClassVar[str] = "checkpoint_foreign"
    uuid: str
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointsDeleted:
    """They are no checkpoints any more; their files are about to be removed."""

    kind: ClassVar[str] = "checkpoints_deleted"
    uuids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointsRemoved:
    """Nothing is left of the files of deleted checkpoints."""

    kind: ClassVar[str] = "checkpoints_removed"
    uuids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class FilesDeleted:
    """These files are no part of the checkpoint any more, and are about to be removed."""

    kind: ClassVar[str] = "files_deleted"
    uuid: str
    paths: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class FilesRemoved:
    """Nothing is left of the deleted files of a checkpoint."""

    kind: ClassVar[str] = "files_removed"
    uuid: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StorageBlocked:
    """Checkpoints cannot be stored or removed for a while, and why; an empty text ends it."""

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
_KINDS: Mapping[str, Callable[..., Fact]] = {cls.kind: cls for cls in get_args(Fact)}
_NUMBER = re.compile(rb',"n":(\d{1,18})\}\n')
_LARGEST = 1 << 30  # bytes
_TAIL = 64  # bytes at the end of a journal that hold the number of its last line
_MOST_DAMAGE = 100  # places that are told one by one
_LONGEST_WHY = 200


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the journal. `time`, in seconds since the epoch, is for display; lines are in order."""

    time: float
    fact: Fact


def append(path: Path, entry: Entry) -> None:
    """Add one entry under the next number; it is on disk when this returns."""
    append_synced(path, encode(entry, number=_next_number(path)))


def encode(entry: Entry, *, number: int = 0) -> bytes:
    """One line of JSON with its newline.

    Args:
        entry: What the line says.
        number: Counts the lines from 1, so that a missing or a doubled one is noticed; 0 for a line without.
    """
    body: dict[str, object] = {"time": entry.time, "kind": entry.fact.kind, **asdict(entry.fact)}
    if number:
        body["n"] = number
    return json.dumps(body, separators=(",", ":"), default=list).encode() + b"\n"


def decode(line: bytes) -> Entry:
    """The opposite of `encode`. Raises ValueError for anything else."""
    return _numbered(line)[1]


def _numbered(line: bytes) -> tuple[int, Entry]:
    """The number of a line, 0 where it has none, and its entry."""
    try:
        raw = json.loads(line.decode())
        cls = _KINDS[raw.pop("kind")]
        number, entry = raw.pop("n", 0), Entry(float(raw.pop("time")), typed(cls, raw))
    except (KeyError, TypeError, AttributeError, RecursionError, OverflowError, ValueError) as error:
        raise ValueError(f"not a journal entry: {error!r}"[:_LONGEST_WHY]) from error
    if number.__class__ is not int or not isfinite(entry.time):
        raise ValueError("not a journal entry: it has a number or a time that cannot be")
    return number, entry


def _next_number(path: Path) -> int:
    """The number after that of the last whole line; older lines, which have none, count too."""
    try:
        file = UntrustedDir(path.parent).open(path.name, limit=_LARGEST)
    except UntrustedError:
        return 1  # there is none yet; what else there may be, the writer meets
    with file:
        end = file.seek(0, os.SEEK_END)
        for block in (_TAIL, end):  # nearly always the last bytes tell
            file.seek(max(0, end - block))
            data = file.read()
            for last in deque(_NUMBER.finditer(data), maxlen=1):
                return int(last[1]) + data.count(b"\n", last.end()) + 1
    return data.count(b"\n") + 1


def replay(path: Path) -> tuple[Entry, ...]:
    """Every whole entry.

    A torn last line was never acted on, so it is as if it had not been written. Other lines that are no
    entries are left out: one bad disk block loses one line.
    """
    return tuple(JournalFile(path).new())


class JournalFile:
    """The entries of a journal, read on from where the last look ended.

    `damage` tells of each place at which the file is not as it was written.
    """

    def __init__(self, path: Path) -> None:
        self.damage: list[str] = []
        self._path = path
        self._lines = LineFile(path)
        self._line = 0  # how many lines were read
        self._number = 0  # the highest of a line
        self._spoilt = 0  # lines that were no entries since then
        self._seen: set[int] = set()

    def new(self) -> Iterator[Entry]:
        """Yield what was appended since the last look; nothing while there is no journal."""
        for line in self._lines.new():
            self._line += 1
            try:
                number, entry = _numbered(line)
            except ValueError as error:
                self._spoilt += 1
                self._tell(str(error))
                continue
            if not number or self._is_new(number, line):
                yield entry

    def _is_new(self, number: int, line: bytes) -> bool:
        """Whether the line is new, not a copy of an earlier one; a gap before it is told."""
        key, expected = hash(line), self._number + 1 + self._spoilt
        if number <= self._number:
            is_copy = key in self._seen
            self._tell(f"repeats number {number}" if is_copy else f"comes after its time, as number {number}")
            return not is_copy
        if self._number and number > expected:
            self._tell(f"{number - expected} lines are missing before it")
        elif not self._number and number > self._line:
            self._tell(f"{number - self._line} lines are missing before it")
        self._number, self._spoilt = number, 0
        self._seen.add(key)
        return True

    def _tell(self, why: str) -> None:
        if len(self.damage) < _MOST_DAMAGE:
            self.damage.append(f"{self._path}, line {self._line}: {why}")
