"""What happens to the trials of a search, and what a search method decides about them, as frozen values.

The journal holds both: one entry for each event, with the decisions that followed from it. A method that is
asked again with the same events decides the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from typing import ClassVar, get_args

from determined._run_info import Length


class TrialEnd(str, Enum):
    """Why nothing more comes from a trial."""

    COMPLETED = "completed"  # it did all that was asked of it, or was stopped by the search
    ERRORED = "errored"
    INVALID_HP = "invalid_hp"
    STOPPED = "stopped"  # its own code asked for the end
    CANCELED = "canceled"  # a person did


@dataclass(frozen=True, slots=True)
class Began:
    """The experiment starts: the first event, once."""

    kind: ClassVar[str] = "began"


@dataclass(frozen=True, kw_only=True, slots=True)
class Validated:
    """A trial reports its searcher metric.

    `time` is what it has trained in total, in the unit of the search: of `max_length`, or of `time_metric`.
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
    """A new trial; nothing is trained before a `Train` follows."""

    kind: ClassVar[str] = "create"
    trial_id: int  # 1, 2, 3 ... in the order of creation
    request_id: str  # a UUID, as Determined draws it
    seed: int
    hparams: Mapping[str, object] = field(default_factory=dict)
    parent: int | None = None  # the trial whose newest checkpoint it starts from


@dataclass(frozen=True, kw_only=True, slots=True)
class Train:
    """Train until it is `length` in total, then validate; None leaves the end to the trial's own code.

    `milestones` are lengths in between at which it validates too, and trains on.
    """

    kind: ClassVar[str] = "train"
    trial_id: int
    length: Length | None = None
    milestones: tuple[int, ...] = ()  # in the unit of `length`


@dataclass(frozen=True, kw_only=True, slots=True)
class Stop:
    """Nothing more is wanted of the trial, wherever it is: it checkpoints and ends completed."""

    kind: ClassVar[str] = "stop"
    trial_id: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Close:
    """Nothing is wanted of the trial after what it was told to train."""

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
    """As a line of the journal holds it."""
    return {"kind": value.kind, **asdict(value)}


def from_json(raw: Mapping[str, object]) -> SearchEvent | Action:
    """The opposite of `to_json`. Raises ValueError for anything else."""
    try:
        cls = _KINDS[str(raw["kind"])]
        known = {f.name for f in fields(cls)}
        values = {key: _value(key, value) for key, value in raw.items() if key in known}
        made: SearchEvent | Action = cls(**values)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"neither an event nor a decision of a search: {error!r}") from error
    return made


def _value(key: str, value: object) -> object:
    if key == "reason":
        return TrialEnd(value)
    if key == "length" and isinstance(value, Mapping):
        return Length(**value)
    return tuple(value) if key == "milestones" and isinstance(value, (list, tuple)) else value
