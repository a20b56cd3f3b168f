"""The queue for slots of one kind: its order, and why each trial is queued, in words."""

from __future__ import annotations

import pwd
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from detbuild.launch.share import Memory, Share, Wait, in_order, remember, share
from detbuild.units import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from detbuild.launch.stock import Stock
    from detbuild.launch.tickets import Ticket

BEHIND: Final = "after other trials of its experiment"  # why all but the next trial of one are queued
_NAMES: Final[Mapping[str, str]] = {"cpu": "CPU slot", "gpu": "GPU"}
PASSES: Final = (
    15.0  # seconds without a look after which a turn passes to the next: its holder is stopped, or hangs
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    stock: Stock
    tickets: tuple[Ticket, ...]  # of those who look, without trials that have been served
    memory: Memory

    @property
    def waits(self) -> tuple[Wait, ...]:
        return tuple(self._wait(ticket) for ticket in self.tickets)

    def _wait(self, ticket: Ticket) -> Wait:
        """Without a limit of its home that says no more than that the host has no free slot."""
        wait = wait_of(ticket)
        return replace(wait, limit=None) if wait.limit is None or wait.limit >= self.stock.total else wait

    def share(self) -> Share:
        """Hand out the free slots to those who may start now."""
        stock, waits = self.stock, self.waits
        free = stock.free[: sum(len(wait.since) for wait in waits)] if stock.kind == "cpu" else stock.free
        return share(waits, stock.holdings, self.memory, free=free, total=stock.total)

    def order(self) -> tuple[str, ...]:
        """Experiments, one for each trial that may start as things are, in the order of their turns."""
        return tuple(wait.experiment for wait in self._turns(self.waits))

    def why(self, ticket: Ticket) -> str:
        """Say why the next trial of an experiment is queued."""
        return self._limited(ticket) or self._behind(ticket)

    def _limited(self, ticket: Ticket) -> str:
        """The limit that keeps its trials from starting whatever others do; "" for none."""
        stock, own = self.stock, self._wait(ticket)
        if not own.fits(stock.total):
            has = f"this host has {stock.total}"
            if own.usable is not None:
                has = f"its home may use {len(own.usable)} of {stock.total}"
            return f"needs {counted(own.slots, _NAMES[ticket.kind])}, {has}"
        if any(self._turns([own])):
            return ""
        if any(self._turns([replace(own, limit=None)])):
            return f"its home uses {stock.used_by(own.home)} of its {own.limit} CPU slots (cpu_trials)"
        return f"limited by its resources.max_slots ({ticket.max_slots})"

    def _behind(self, ticket: Ticket) -> str:
        """Who comes first of those who need the same slots."""
        own = wait_of(ticket)
        needed = f", {ticket.slots} needed" if ticket.slots > 1 else ""
        said = f"{self.stock.usage(own.usable)}{needed}"
        rivals = [wait for wait in self.waits if _compete(wait, own)]
        first = next(self._turns(rivals), own)
        if first.experiment == own.experiment:
            return said
        return f"{said}; next after experiment {number_of(first.experiment)} ({name_of(first.user)})"

    def _turns(self, waits: Sequence[Wait]) -> Iterator[Wait]:
        return in_order(waits, self.stock.holdings, self.memory, total=self.stock.total)


def _compete(one: Wait, other: Wait) -> bool:
    """Whether the two need slots of which one may be the same."""
    return one.usable is None or other.usable is None or not one.usable.isdisjoint(other.usable)


def line_of(stock: Stock, tickets: Iterable[Ticket], memory: Memory, *, now: float) -> Line:
    """Make the line for a stock out of all tickets of the host.

    Args:
        stock: As it is now.
        tickets: Of any engine and kind.
        memory: As the last look left it.
        now: Seconds on the host's clock.
    """
    there = tuple(
        waiting
        for ticket in tickets
        if (ticket.engine, ticket.kind) == (stock.engine, stock.kind)
        and -PASSES <= now - ticket.asked <= PASSES
        for waiting in [_unserved(ticket, stock)]
        if waiting.waiting
    )
    stock = stock.widened(ticket.limit for ticket in there if ticket.limit is not None)
    waits = tuple(wait_of(ticket) for ticket in there)
    return Line(stock=stock, tickets=there, memory=remember(memory, waits, stock.holdings, now=now))


def _unserved(ticket: Ticket, stock: Stock) -> Ticket:
    served = stock.served
    left = {t: since for t, since in ticket.waiting.items() if (ticket.experiment, t) not in served}
    return replace(ticket, waiting=left)


def wait_of(ticket: Ticket) -> Wait:
    """A ticket as the rule sees it."""
    return Wait(
        experiment=ticket.experiment,
        user=ticket.user,
        slots=ticket.slots,
        since=tuple(sorted(ticket.waiting.values())),
        priority=ticket.priority,
        weight=ticket.weight,
        max_slots=ticket.max_slots,
        limit=ticket.limit,
        usable=None if ticket.usable is None else frozenset(ticket.usable),
    )


def number_of(experiment: str) -> str:
    """The number that its user knows it by."""
    return experiment.partition("/")[2]


def name_of(user: str) -> str:
    """The name of a uid, where the host knows one."""
    try:
        return pwd.getpwuid(int(user)).pw_name
    except (ValueError, KeyError, OverflowError):
        return user or "unknown"
