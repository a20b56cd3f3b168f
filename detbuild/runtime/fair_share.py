"""Fair share: which trial gets the free slots of a host next, by the same rule for GPUs and CPU slots.

Within a priority, the user with the fewest slots in use goes first; on a tie, the one with the least past use
while others waited; then that user's experiments in the same way; then the longest wait. Slots in use and
past use are divided by `resources.weight`.

Head-of-line reservation, so that large trials are not starved: if too few slots are free for the first trial,
those that it may use are reserved for it, and it stays first of its priority until it is served. So a trial
that needs four GPUs waits no longer than the runs that are active when it becomes first.

Only trials that could start with more free slots are queued. An experiment at its `max_slots`, or of a home
at its own limit, blocks no other; slots that the first trial may not use go to the next that may.

Past use is counted as in a kernel's fair scheduler: it grows while others wait; idle time gives no credit.
A new user starts with the least past use of its rivals. A new experiment starts with the most past use of
its user's queued ones, so a stream of new experiments cannot starve an old one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

PRIORITY: Final = 42  # the default, as in Determined; a lower number goes first
_LIGHTEST: Final = 0.01  # the smallest effective weight
_LONGEST_POLL: Final = 10.0  # seconds between two polls; after a longer gap the queue was empty
_FORGOTTEN: Final = 600.0  # seconds after which the past use of an absent one is dropped
_A_TURN: Final = 1.0  # seconds that each start counts at least, so that very short trials take turns too


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """The queued trials of one experiment, which are all alike."""

    experiment: str
    user: str
    slots: int  # that each trial needs
    since: tuple[float, ...]  # of each trial, seconds on the host's clock, longest wait first
    priority: int = PRIORITY
    weight: float = 1.0
    max_slots: int | None = None
    limit: int | None = None  # slots of its home; None for all
    usable: frozenset[str] | None = None  # names of usable slots; None for all

    @property
    def cost(self) -> float:
        return cost(self.slots, self.weight)

    @property
    def home(self) -> str:
        return home_of(self.experiment)

    def fits(self, total: int) -> bool:
        """Whether a host with `total` slots can run one of its trials."""
        return self.slots <= (total if self.usable is None else min(total, len(self.usable)))

    def may_use(self, name: str) -> bool:
        return self.usable is None or name in self.usable


@dataclass(frozen=True, kw_only=True, slots=True)
class Holding:
    """The slots of one container."""

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
    """The past use of a user or experiment while others waited."""

    cost: float  # slots x seconds / weight
    seen: float  # when it was last queued or running


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Past use, kept between polls; losing it costs only fairness."""

    at: float = 0.0
    first: str = ""  # the experiment with the reservation
    used: Mapping[str, Use] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FairShare:
    """An allocation of the free slots."""

    granted: Mapping[str, tuple[tuple[str, ...], ...]]  # experiment -> slot names of each trial
    kept_for: str  # the experiment with the reservation, or ""


def cost(slots: int, weight: float) -> float:
    """Return slots divided by weight."""
    return slots / max(_LIGHTEST, weight)


def home_of(experiment: str) -> str:
    """Return the home's ID, the prefix of an experiment's name."""
    return experiment.partition("/")[0]


def fair_share(
    waits: Sequence[Wait], holdings: Iterable[Holding], memory: Memory, *, free: Iterable[str], total: int
) -> FairShare:
    """Allocate the free slots in fair order, with a head-of-line reservation.

    Args:
        waits: One for each queued experiment.
        holdings: Slots in use.
        memory: As returned by `remember`.
        free: Names of the free slots.
        total: Slots of the host; trials that need more are skipped.
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
            # Without a usable free slot there is no new reservation; an old one stays.
            kept_for = kept_for or (wait.experiment if own or wait.experiment == memory.first else "")
        left = [name for name in left if name not in own]
        if not left:
            break
    return FairShare(granted, kept_for)


def _suited(wait: Wait, left: Iterable[str], waits: Sequence[Wait]) -> list[str]:
    """Return the free slots that it may use, those with the fewest rivals first."""
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
    """Yield an experiment for each trial that may start with the current limits, in queue order.

    Args:
        waits: One for each queued experiment.
        holdings: Slots in use.
        memory: As returned by `remember`.
        total: Slots of the host.
        without: Experiments to skip; the caller may add some between two results.
    """
    in_use = _InUse(holdings)
    started: Counter[str] = Counter()

    def rank(wait: Wait) -> tuple[object, ...]:
        experiment, nth = wait.experiment, started[wait.experiment]
        kept = experiment == memory.first and nth == 0
        parts = ((in_use.cost(name), _had(memory, name)) for name in (_user(wait), experiment))
        return wait.priority, not kept, *parts, wait.since[nth], experiment

    while ready := [
        wait
        for wait in waits
        if started[wait.experiment] < len(wait.since)
        and wait.experiment not in without
        and wait.fits(total)
        and in_use.allows(wait)
    ]:
        wait = min(ready, key=rank)
        yield wait
        started[wait.experiment] += 1
        in_use.add(wait)


class _InUse:
    """Slots in use by user and experiment, including those of the trials yielded so far."""

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
        return round(self._costs[name], 9)  # so that sums in another order are equal

    def allows(self, wait: Wait) -> bool:
        """Whether one more of its trials is within the limits of experiment and home."""
        limits = ((wait.experiment, wait.max_slots), (_home(wait), wait.limit))
        return all(most is None or self._slots[name] + wait.slots <= most for name, most in limits)


def remember(memory: Memory, waits: Sequence[Wait], holdings: Sequence[Holding], *, now: float) -> Memory:
    """Add the use since the last poll, and initialize new users and experiments."""
    used = {name: use for name, use in memory.used.items() if 0 <= now - use.seen <= _FORGOTTEN}
    for wait in waits:
        for name, start in ((_user(wait), _least), (wait.experiment, _most)):
            used[name] = Use(used[name].cost if name in used else start(used, wait, waits), now)
    passed = min(max(now - memory.at, 0.0), _LONGEST_POLL) if waits else 0.0
    for holding in holdings:
        used = _charge(used, holding, passed, now)
    return replace(memory, at=now, used=used)


def served(memory: Memory, wait: Wait, *, now: float) -> Memory:
    """Count the start of a trial, and drop its experiment's reservation."""
    first = "" if memory.first == wait.experiment else memory.first
    return replace(memory, first=first, used=_charge(memory.used, wait, _A_TURN, now))


def _least(used: Mapping[str, Use], wait: Wait, waits: Sequence[Wait]) -> float:
    """Return the least past use of the users queued in the same priority."""
    names = {_user(other) for other in waits if other.priority == wait.priority}
    return min((used[name].cost for name in names if name in used), default=0.0)


def _most(used: Mapping[str, Use], wait: Wait, waits: Sequence[Wait]) -> float:
    """Return the most past use of the user's experiments queued in the same priority."""
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
    """Return the user's key; it cannot equal an experiment's, which has a slash."""
    return f"user {one.user}"
