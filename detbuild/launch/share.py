"""Who gets the free slots of a host next: a rule on values, the same for GPUs and for places on the CPU.

Within a priority, the user goes first who holds least; of those who hold the same, the one who has had
least while others waited; then that user's experiments in the same way; then who has waited longest. What
is held and what was had count in slots divided by `resources.weight`.

Head-of-line reservation, so that large trials are not starved: when what is free is too little for the first
one, the part of it that this one can use is kept for it, and it stays the first of its priority until it is
served. So a trial that needs four GPUs waits no longer than the trials do that run when it becomes first.

Only what could start if more were free is in the line. An experiment at its `max_slots`, and one of a home at
its own limit, hold no one up; slots that the first one may not use go to the next that may.

What was had is counted as the fair schedulers of kernels count it: it grows while somebody waits, and an idle
past is no credit. A new user starts with the least that any rival has had. A new experiment starts with the
most that any other of its user has had that waits, so a stream of new ones cannot pass an old one for ever.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

PRIORITY: Final = 42  # of an experiment that names none, as in Determined; a lower number goes first
_LIGHTEST: Final = 0.01  # a smaller weight counts as this one
_LONGEST_LOOK: Final = 10.0  # seconds between two looks, of which more are no waiting but an empty queue
_FORGOTTEN: Final = 600.0  # seconds after which what an absent one has had is forgotten
_A_TURN: Final = 1.0  # seconds that a start counts for, so that trials that end at once take turns too


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """The trials of one experiment that wait, which are all alike."""

    experiment: str
    user: str
    slots: int  # that each of them needs
    since: tuple[float, ...]  # seconds on the host's clock, one for each trial, the longest waiting first
    priority: int = PRIORITY
    weight: float = 1.0
    max_slots: int | None = None
    limit: int | None = None  # slots that all experiments of its home may hold at once; None for all
    usable: frozenset[str] | None = None  # names of the slots that its home may use; None for all

    @property
    def cost(self) -> float:
        return cost(self.slots, self.weight)

    @property
    def home(self) -> str:
        return home_of(self.experiment)

    def fits(self, total: int) -> bool:
        """Whether a host of so many slots can run one of its trials."""
        return self.slots <= (total if self.usable is None else min(total, len(self.usable)))

    def may_use(self, name: str) -> bool:
        return self.usable is None or name in self.usable


@dataclass(frozen=True, kw_only=True, slots=True)
class Holding:
    """Slots that one container holds."""

    experiment: str
    user: str
    slots: int
    weight: float = 1.0

    @property
    def cost(self) -> float:
        return cost(self.slots, self.weight)

    @property
    def home(self) -> str:
        return home_of(self.experiment)


@dataclass(frozen=True, slots=True)
class Use:
    """What a user or an experiment has had while somebody waited."""

    cost: float  # slots x seconds / weight
    seen: float  # when it last waited or held


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """What the host remembers from one look to the next; an empty one is right too, only less fair."""

    at: float = 0.0
    first: str = ""  # the experiment that free slots are kept for
    used: Mapping[str, Use] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FairShare:
    """The free slots, handed out."""

    granted: Mapping[str, tuple[tuple[str, ...], ...]]  # experiment -> names of slots of each trial
    kept_for: str  # the experiment that comes next and needs more than what is left for it, or ""


def cost(slots: int, weight: float) -> float:
    """What slots count for an experiment of this weight."""
    return slots / max(_LIGHTEST, weight)


def home_of(experiment: str) -> str:
    """The home's id, which the name of an experiment begins with."""
    return experiment.partition("/")[0]


def fair_share(
    waits: Sequence[Wait], holdings: Iterable[Holding], memory: Memory, *, free: Iterable[str], total: int
) -> FairShare:
    """Hand out what is free in the fair order; keep for one that needs more what it can use of it.

    Args:
        waits: One for each experiment that waits.
        holdings: Slots in use.
        memory: As `remember` left it.
        free: Names of the slots that are not in use.
        total: Slots of the host; a trial that needs more of them is not in the line.
    """
    left = list(free)
    granted: defaultdict[str, tuple[tuple[str, ...], ...]] = defaultdict(tuple)
    blocked: set[str] = set()
    kept_for = ""
    for wait in in_order(waits, holdings, memory, total=total, without=blocked):
        own = _suited(wait, left, waits)
        if len(own) >= wait.slots:
            own = own[: wait.slots]
            granted[wait.experiment] += (tuple(own),)
        else:
            blocked.add(wait.experiment)
            # Of nothing there is nothing to keep, but the one that slots were kept for stays the first.
            kept_for = kept_for or (wait.experiment if own or wait.experiment == memory.first else "")
        left = [name for name in left if name not in own]
        if not left:
            break
    return FairShare(granted, kept_for)


def _suited(wait: Wait, left: Iterable[str], waits: Sequence[Wait]) -> list[str]:
    """The free slots that it may use, first those that the fewest others may."""
    choosy = [other.usable for other in waits if other.usable is not None]
    own = [name for name in left if wait.may_use(name)]
    return sorted(own, key=lambda name: sum(name in usable for usable in choosy))


def in_order(
    waits: Sequence[Wait],
    holdings: Iterable[Holding],
    memory: Memory,
    *,
    total: int,
    without: Container[str] = (),
) -> Iterator[Wait]:
    """Yield an experiment for each trial that may start as things are, in the order of their turns.

    Args:
        waits: One for each experiment that waits.
        holdings: Slots in use.
        memory: As `remember` left it.
        total: Slots of the host.
        without: Experiments to leave out; the caller may add some between two turns.
    """
    held = _Held(holdings)
    started: Counter[str] = Counter()

    def rank(wait: Wait) -> tuple[object, ...]:
        experiment, nth = wait.experiment, started[wait.experiment]
        kept = experiment == memory.first and nth == 0
        parts = ((held.cost(name), _had(memory, name)) for name in (_user(wait), experiment))
        return wait.priority, not kept, *parts, wait.since[nth], experiment

    while ready := [
        wait
        for wait in waits
        if started[wait.experiment] < len(wait.since)
        and wait.experiment not in without
        and wait.fits(total)
        and held.allows(wait)
    ]:
        wait = min(ready, key=rank)
        yield wait
        started[wait.experiment] += 1
        held.add(wait)


class _Held:
    """What users and experiments hold, and would hold if those served so far had started."""

    def __init__(self, holdings: Iterable[Holding]) -> None:
        self._costs: defaultdict[str, float] = defaultdict(float)
        self._slots: Counter[str] = Counter()
        for holding in holdings:
            self.add(holding)

    def add(self, one: Wait | Holding) -> None:
        for name in (one.experiment, _home(one)):
            self._slots[name] += one.slots
        for name in (_user(one), one.experiment):
            self._costs[name] += one.cost

    def cost(self, name: str) -> float:
        return round(self._costs[name], 9)  # sums of the same numbers in another order are equal

    def allows(self, wait: Wait) -> bool:
        """Whether one more of its trials stays within the limits of its experiment and its home."""
        limits = ((wait.experiment, wait.max_slots), (_home(wait), wait.limit))
        return all(most is None or self._slots[name] + wait.slots <= most for name, most in limits)


def remember(memory: Memory, waits: Sequence[Wait], holdings: Sequence[Holding], *, now: float) -> Memory:
    """Count what was had since the last look, and give those who wait for the first time their start."""
    used = {name: use for name, use in memory.used.items() if 0 <= now - use.seen <= _FORGOTTEN}
    for wait in waits:
        for name, start in ((_user(wait), _least), (wait.experiment, _most)):
            used[name] = Use(used[name].cost if name in used else start(used, wait, waits), now)
    passed = min(max(now - memory.at, 0.0), _LONGEST_LOOK) if waits else 0.0
    for holding in holdings:
        used = _charge(used, holding, passed, now)
    return replace(memory, at=now, used=used)


def served(memory: Memory, wait: Wait, *, now: float) -> Memory:
    """Count the start of a trial, and keep nothing for its experiment any more."""
    first = "" if memory.first == wait.experiment else memory.first
    return replace(memory, first=first, used=_charge(memory.used, wait, _A_TURN, now))


def _least(used: Mapping[str, Use], wait: Wait, waits: Sequence[Wait]) -> float:
    """What the user has had who has had least; who waits in another priority is no rival."""
    names = {_user(other) for other in waits if other.priority == wait.priority}
    return min((used[name].cost for name in names if name in used), default=0.0)


def _most(used: Mapping[str, Use], wait: Wait, waits: Sequence[Wait]) -> float:
    """The same of the experiment of the user that has had most."""
    rivals = (other for other in waits if (other.priority, other.user) == (wait.priority, wait.user))
    return max((used[each.experiment].cost for each in rivals if each.experiment in used), default=0.0)


def _charge(used: Mapping[str, Use], one: Wait | Holding, seconds: float, now: float) -> dict[str, Use]:
    names = (name for name in (_user(one), one.experiment) if name in used)
    return {**used, **{name: Use(used[name].cost + one.cost * seconds, now) for name in names}}


def _had(memory: Memory, name: str) -> float:
    return round(memory.used[name].cost, 9) if name in memory.used else 0.0


def _home(one: Wait | Holding) -> str:
    return f"home {one.home}"


def _user(one: Wait | Holding) -> str:
    """Their names beside those of experiments, which have a slash in them."""
    return f"user {one.user}"
