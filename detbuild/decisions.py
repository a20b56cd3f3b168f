"""Events of a search and the decisions of its method, as frozen values.

The journal has one entry per event, with the decisions that followed. Replaying the events gives the same
decisions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from typing import ClassVar, get_args

from determined._run_info import Length


class TrialEnd(str, Enum):
    """Why a trial ended."""

    COMPLETED = "completed"  # trained as long as requested, or stopped by the search
    ERRORED = "errored"
    INVALID_HP = "invalid_hp"
    STOPPED = "stopped"  # by its own code
    CANCELED = "canceled"  # by a user


@dataclass(frozen=True, slots=True)
class Began:
    """The experiment starts: the first event, sent once."""

    kind: ClassVar[str] = "began"


@dataclass(frozen=True, kw_only=True, slots=True)
class Validated:
    """A trial reports its searcher metric.

    `time` is the total trained so far, in the unit of `max_length` or `time_metric`.
    """

    kind: ClassVar[str] = "validated"
    trial_id: int
    time: float
    metric: float | None  # None when it is absent or not a number


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialEnded:
    kind: ClassVar[str] = "trial_ended"
    trial_id: int
    reason: TrialEnd


@dataclass(frozen=True, kw_only=True, slots=True)
class Create:
    """A new trial; it starts with its first `Train`."""

    kind: ClassVar[str] = "create"
    trial_id: int  # 1, 2, 3 ... in the order of creation
    request_id: str  # a UUID, as Determined draws it
    seed: int
    hparams: Mapping[str, object] = field(default_factory=dict)
    parent: int | None = None  # the trial whose newest checkpoint it starts from


@dataclass(frozen=True, kw_only=True, slots=True)
class Train:
    """Train to `length` in total, then validate; None lets the trial's own code decide when to end.

    At `milestones`, shorter lengths, it validates too.
    """

    kind: ClassVar[str] = "train"
    trial_id: int
    length: Length | None = None
    milestones: tuple[int, ...] = ()  # in the unit of `length`


@dataclass(frozen=True, kw_only=True, slots=True)
class Stop:
    """Stop the trial now: it saves a checkpoint and ends as completed."""

    kind: ClassVar[str] = "stop"
    trial_id: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Close:
    """End the trial after its last `Train`."""

    kind: ClassVar[str] = "close"
    trial_id: int


@dataclass(frozen=True, slots=True)
class Finish:
    """Every trial has ended and none will be created."""

    kind: ClassVar[str] = "finish"


SearchEvent = Began | Validated | TrialEnded
Action = Create | Train | Stop | Close | Finish
_KINDS: Mapping[str, type] = {cls.kind: cls for cls in (*get_args(SearchEvent), *get_args(Action))}


def to_json(value: SearchEvent | Action) -> dict[str, object]:
    """Convert to the form of the journal."""
    return {"kind": value.kind, **asdict(value)}


def from_json(raw: Mapping[str, object]) -> SearchEvent | Action:
    """Parse what `to_json` returned; raise ValueError for anything else."""
    try:
        cls = _KINDS[str(raw["kind"])]
        known = {f.name for f in fields(cls)}
        values = {key: _value(key, value) for key, value in raw.items() if key in known}
        made: SearchEvent | Action = cls(**values)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not an event or decision of a search: {error!r}") from error
    return made


def _value(key: str, value: object) -> object:
    if key == "reason":
        return TrialEnd(value)
    if key == "length" and isinstance(value, Mapping):
        return Length(**value)
    return tuple(value) if key == "milestones" and isinstance(value, (list, tuple)) else value
