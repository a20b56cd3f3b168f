"""The records of `events.jsonl`, by which a run reports to the host: one JSON object a line.

A line is `{"seq": n, "run": "<trial>-<run>", "time": seconds since the epoch, "kind": ..., ...fields}`; `seq`
counts from 1 without gaps in each file and gives the order; `time` is for display only.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from functools import lru_cache
from math import isfinite
from typing import Any, ClassVar, get_args

_NOT_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_NONE = type(None)
# JSON types of the fields. Readers rely on this check, since user code may have written anything.
_TYPES: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("uuid", "why", "message", "hint", "failure", "python", "harness", "group"), (str,)),
    **dict.fromkeys(("steps_completed", "pid", "oom_kills", "contract"), (int,)),
    **dict.fromkeys(("metrics", "metadata"), (dict,)),
    "stage": (_NONE,),
    "reason": (),
    "resources": (),
    "fraction": (float, int),
    "code": (int, _NONE),
    "signal": (str, _NONE),
    "disk_full": (bool,),
}
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MOST_STEPS = 1 << 53  # largest exact integer of a float
_DECODER = json.JSONDecoder()
_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"))


class ExitReason(str, Enum):
    """Why a worker ended, as it reports. Only the last two are failures."""

    COMPLETED = "completed"
    PREEMPTED = "preempted"  # asked to stop by SIGTERM; a checkpoint was written
    STOPPED = "stopped"  # the trial called set_stop_requested
    INVALID_HP = "invalid_hp"
    ERROR = "error"  # user code failed while running: a retry may succeed
    NOT_RETRYABLE = "not_retryable"  # cannot succeed unchanged: entrypoint, imports, wrong trial class

    @property
    def failed(self) -> bool:
        return self in {ExitReason.ERROR, ExitReason.NOT_RETRYABLE}


class Stage(str, Enum):
    """A stage of a run; a failure records its stage."""

    IMPORT = "import"
    BUILD = "build"  # the trial's __init__, its callbacks and its data loaders
    RESTORE = "restore"
    TRAIN = "train"
    VALIDATE = "validate"
    CHECKPOINT = "checkpoint"


@dataclass(frozen=True, slots=True)
class Started:
    """Written by the supervisor before it starts the worker."""

    kind: ClassVar[str] = "started"
    pid: int
    python: str
    harness: str  # version of the harness
    contract: int = 1  # version of the records


@dataclass(frozen=True, slots=True)
class StageEntered:
    kind: ClassVar[str] = "stage"
    stage: Stage


@dataclass(frozen=True, slots=True)
class Training:
    """Metrics averaged over the batches since the last such record."""

    kind: ClassVar[str] = "training"
    steps_completed: int  # batches
    metrics: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Validation:
    kind: ClassVar[str] = "validation"
    steps_completed: int
    metrics: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Measured:
    """Metrics of a script's own group, other than training and validation."""

    kind: ClassVar[str] = "metrics"
    group: str
    steps_completed: int
    metrics: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A new checkpoint, recorded after its directory is complete, synced and visible."""

    kind: ClassVar[str] = "checkpoint"
    uuid: str
    steps_completed: int
    resources: Mapping[str, int]  # path in the checkpoint -> bytes
    metadata: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Restored:
    kind: ClassVar[str] = "restored"
    uuid: str
    steps_completed: int


@dataclass(frozen=True, slots=True)
class CheckpointRejected:
    """A checkpoint to resume from is missing or damaged; the next older one is tried."""

    kind: ClassVar[str] = "checkpoint_rejected"
    uuid: str
    why: str


@dataclass(frozen=True, slots=True)
class Progress:
    kind: ClassVar[str] = "progress"
    fraction: float  # 0..1


@dataclass(frozen=True, slots=True)
class Ended:
    """The worker's last record. Absent if it was killed."""

    kind: ClassVar[str] = "ended"
    reason: ExitReason
    stage: Stage | None = None
    message: str = ""  # one line or a few, for people
    hint: str = ""
    failure: str = ""  # identifies error and line; "" if a retry may succeed


@dataclass(frozen=True, slots=True)
class Exited:
    """Written by the supervisor after the worker has ended. Absent if the container was killed."""

    kind: ClassVar[str] = "exited"
    code: int | None  # None if a signal ended the worker
    signal: str | None = None  # "SIGKILL"
    oom_kills: int = 0  # processes of this container that the kernel killed for memory
    disk_full: bool = False


Record = (
    Started
    | StageEntered
    | Training
    | Validation
    | Measured
    | Checkpoint
    | Restored
    | CheckpointRejected
    | Progress
    | Ended
    | Exited
)
_KINDS: Mapping[str, type] = {cls.kind: cls for cls in get_args(Record)}
_FIELDS = {cls: tuple(f.name for f in fields(cls)) for cls in _KINDS.values()}
_MUST_SYNC = frozenset({Validation, Checkpoint, Ended, Exited})
_MAY_WAIT = frozenset({Training, Measured, Progress})
_quoted = lru_cache(4096)(_ENCODER.encode)  # names of metrics recur


@dataclass(frozen=True, slots=True)
class Line:
    """One parsed line of `events.jsonl`."""

    seq: int
    run: str
    time: float
    record: Record


class UnknownKindError(ValueError):
    """A valid line of a kind that this version does not know; a newer harness wrote it."""

    def __init__(self, kind: str, run: str) -> None:
        super().__init__(f"not a known kind of record: {kind[:40]!r}")
        self.kind, self.run = kind[:40], run


def must_sync(record: Record) -> bool:
    """Whether the record must be on disk before the host acts on it."""
    return type(record) in _MUST_SYNC


def may_wait(record: Record) -> bool:
    """Whether the record may be written later or lost with its process, since the host does not act on it."""
    return type(record) in _MAY_WAIT


def is_uuid(name: str) -> bool:
    """Whether it is a UUID in the form of checkpoint names."""
    return _UUID.fullmatch(name) is not None


def encode(line: Line) -> bytes:
    """Encode one line of JSON; NaN and infinities become "NaN", "Infinity" and "-Infinity"."""
    record = line.record
    body = "".join([f',"{name}":{_text(getattr(record, name))}' for name in _FIELDS[type(record)]])
    envelope = f'{{"seq":{line.seq},"run":{_quoted(line.run)},"time":{line.time!r},"kind":"{record.kind}"'
    return f"{envelope}{body}}}\n".encode()


def decode(line: bytes) -> Line:
    """Decode a line of `encode`.

    Raises:
        UnknownKindError: readers skip the line, and say so.
        ValueError: the line is not a record; readers reject it and continue.
    """
    try:
        raw = _parsed(line)
        kind = str(raw.pop("kind"))
        seq, run, time = int(raw.pop("seq")), str(raw.pop("run")), float(raw.pop("time"))
        cls = _KINDS.get(kind)
        if cls is not None:
            _check(raw, time)
            if cls is Checkpoint:
                _check_uuid(raw["uuid"])
            return Line(seq, run, time, cls(**raw))
    except (KeyError, TypeError, AttributeError, RecursionError, OverflowError, ValueError) as error:
        raise ValueError(f"not an event record: {error!r}") from error
    raise UnknownKindError(kind, run)


def _parsed(line: bytes) -> dict[str, Any]:
    """Parse JSON at less than half the cost of `json.loads`, which dominates reading a long series."""
    text = line.decode()
    raw: dict[str, Any]
    raw, end = _DECODER.raw_decode(text)
    if end < len(text):
        raw = json.loads(text)
    return raw


def _check(raw: dict[str, Any], time: float) -> None:
    for name, value in raw.items():
        if value.__class__ not in _TYPES[name]:
            raw[name] = _converted(name, value)
    if "metrics" in raw:
        raw["metrics"] = _with_numbers(raw["metrics"])
    if not (isfinite(time) and 0 <= raw.get("steps_completed", 0) <= _MOST_STEPS):
        raise ValueError("time or number of batches out of range")


def _check_uuid(name: str) -> None:
    """Check a UUID, since it becomes a path and a key of a bucket."""
    if not is_uuid(name):
        raise ValueError(f"{name[:40]!r} is not a checkpoint UUID")


def _converted(name: str, value: object) -> object:
    """Convert the few fields that differ from their JSON type."""
    if name == "stage" and isinstance(value, str):
        return Stage(value)
    if name == "reason":
        return ExitReason(value)
    if name == "resources" and isinstance(value, dict) and all(type(size) is int for size in value.values()):
        return value
    raise ValueError(f"{name} is {type(value).__name__}")


def _with_numbers(metrics: dict[str, object]) -> object:
    """Replace the names of NaN and the infinities by their values."""
    for value in metrics.values():
        if value.__class__ is not float:
            return _numbers(metrics)
    return metrics


def _text(value: object) -> str:
    """Encode one field. Mappings of numbers are the common case, so they have a fast path."""
    kind = type(value)
    if kind is int or (kind is float and isfinite(value)):  # type: ignore[arg-type]
        return repr(value)
    if kind is not dict:
        return _ENCODER.encode(_plain(value))
    members = [
        f"{_quoted(str(key))}:{item!r}"
        if type(item) is int or (type(item) is float and isfinite(item))
        else f"{_quoted(str(key))}:{_text(item)}"
        for key, item in value.items()  # type: ignore[attr-defined]
    ]
    return f"{{{','.join(members)}}}"


def _plain(value: object) -> object:
    if isinstance(value, float) and not isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _numbers(value: object) -> object:
    if isinstance(value, str):
        return _NOT_NUMBERS.get(value, value)
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return value
