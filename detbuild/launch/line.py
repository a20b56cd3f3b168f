"""The line of all who wait for slots of one kind: who is before whom, and what each waits for, in words."""

from __future__ import annotations

import pwd
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from detbuild.launch.share import Memory, Share, Wait, in_order, remember, share

if TYPE_CHECKING:
    from collections.abc import Iterable

    from detbuild.launch.stock import Stock
    from detbuild.launch.tickets import Ticket

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
        return tuple(wait_of(ticket) for ticket in self.tickets)

    def share(self) -> Share:
        """Who may start now."""
        stock = self.stock
        return share(self.waits, stock.holdings, self.memory, free=stock.free, total=stock.total)

    def order(self) -> tuple[str, ...]:
        """Experiments, one for each trial that may start as things are, in the order of their turns."""
        stock = self.stock
        turns = in_order(self.waits, stock.holdings, self.memory, total=stock.total)
        return tuple(wait.experiment for wait in turns)

    def why(self, ticket: Ticket) -> str:
        """What the next trial of an experiment waits for."""
        wanted = f"waits for {wanted_by(ticket)}"
        if ticket.slots > self.stock.total:
            return f"{wanted}: this host has {self.stock.total}"
        stock, own = self.stock, wait_of(ticket)
        if not any(in_order([own], stock.holdings, self.memory, total=stock.total)):
            return f"{wanted}: the experiment uses all of its resources.max_slots, {ticket.max_slots}"
        first = next(in_order(self.waits, stock.holdings, self.memory, total=stock.total))
        if first.experiment == own.experiment:
            return f"{wanted}: {stock.said}"
        name = f"experiment {number_of(first.experiment)} of user {name_of(first.user)}"
        return f"{wanted}: {stock.said}; {name} is before it"


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
    )


def wanted_by(ticket: Ticket) -> str:
    """What each of its trials needs, for people."""
    if ticket.kind == "cpu":
        return "a CPU place"
    return f"{ticket.slots} free GPU{'s'[: ticket.slots > 1]}"


def behind(ticket: Ticket) -> str:
    """What a trial waits for that is not the next of its experiment, in words that stay the same."""
    return f"waits for {wanted_by(ticket)} after other trials of its experiment"


def number_of(experiment: str) -> str:
    """The number that its user knows it by."""
    return experiment.partition("/")[2]


def name_of(user: str) -> str:
    """The name of a uid, where the host knows one."""
    try:
        return pwd.getpwuid(int(user)).pw_name
    except (ValueError, KeyError, OverflowError):
        return user or "unknown"
