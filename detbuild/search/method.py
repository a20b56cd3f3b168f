"""The interface of a search method: events in, decisions out, both as frozen values.

The journal has one entry per event, with the decisions that followed. Replaying the events gives the same
decisions, and `replay` compares them with the recorded ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, Final, Protocol, TypeGuard

from detbuild import codec
from detbuild.errors import SearchError
from determined._contract.run_info import Length  # noqa: TC001  (the codec finds it here)

if TYPE_CHECKING:
    from detbuild.codec import AnyFloat

# C libraries differ in the last digit of powers, and a restart may follow an upgrade.
_TOLERANCE: Final = 1e-12


class SearchMethod(Protocol):
    """One search: each event, from `Began` on, gives the next actions.

    It has no side effects and uses no clock and no outside randomness: equal events give equal actions.
    """

    @property
    def needs_every_validation(self) -> bool:
        """Whether the search receives every validation; else only the last one of each `Train`."""

    @property
    def progress(self) -> float:
        """Progress of the search, 0..1; it never falls."""

    @property
    def share(self) -> float:
        """What each ended trial adds to `progress`; 0 if that varies."""

    def decide(self, event: SearchEvent) -> Sequence[Action]: ...

    def replay(self, event: SearchEvent, actions: Sequence[Action]) -> None:
        """Replay an event with the actions that were recorded before a restart.

        Raises:
            SearchError: The actions would differ now, so the search cannot be continued.
        """


def check_same(decided: Sequence[Action], recorded: Sequence[Action], event: SearchEvent) -> None:
    """Raise SearchError if the recorded actions differ."""
    ours, theirs = [*map(to_json, decided)], [*map(to_json, recorded)]
    if equal(ours, theirs):
        return
    raise SearchError(
        f"the search cannot be continued: after {to_json(event)} its journal has {theirs}, "
        f"but its config now gives {ours}",
        hint="restore the experiment's config and the version of detbuild that started it",
    )


def equal(one: object, other: object) -> bool:
    """Compare as JSON, ignoring the last digits of numbers."""
    if isinstance(one, float) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=_TOLERANCE)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if _is_list(one) and _is_list(other):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def _is_list(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, (list, tuple))


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
    metric: AnyFloat | None  # None when it is absent or not a number


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
_KINDS: Final[Mapping[str, Callable[..., SearchEvent | Action]]] = codec.kinds(SearchEvent | Action)


def to_json(value: SearchEvent | Action) -> dict[str, object]:
    """Convert to the form of the journal."""
    return codec.to_json(value)


def from_json(raw: Mapping[str, object]) -> SearchEvent | Action:
    """Parse what `to_json` returned; raise ValueError for anything else."""
    try:
        return codec.from_kind(_KINDS, raw)
    except ValueError as error:
        raise ValueError(f"not an event or decision of a search: it {error}") from error
