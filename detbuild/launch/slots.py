"""A controller's part of the host's queue: it asks for slots, waits in the fair order, and says for what.

Slots in use are what containers say that have not ended, so a slot comes back with its container, whatever
becomes of the controller. Lock, tickets and memory only decide who is next: without them no GPU is given
twice.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from detbuild.launch.gpus import usable
from detbuild.launch.hostlock import UserLock
from detbuild.launch.line import BEHIND, PASSES, line_of, wait_of
from detbuild.launch.plan import USER_LABEL
from detbuild.launch.share import PRIORITY, served
from detbuild.launch.stock import experiment_of
from detbuild.launch.tickets import Ticket, Tickets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.launch.gpus import Gpu
    from detbuild.launch.line import Line
    from detbuild.launch.share import Memory
    from detbuild.launch.stock import Stock
    from detbuild.store.folder import Header

LOOK: Final = 2.0  # seconds between two looks of a controller whose trials wait
_MANY: Final = 20  # experiments that wait; of more, each looks less often, so that looking stays cheap
_LONGEST: Final = 6.0  # seconds between two looks
_GIVEN_UP: Final = 5.0  # seconds without a question after which a trial is taken to wait no more


def demand(config: ExperimentConfig, header: Header, home_id: str) -> Ticket:
    """What an experiment asks for, with nobody waiting yet."""
    resources = config.resources
    gpus = resources.slots_per_trial
    return Ticket(
        engine=header.engine,
        kind="gpu" if gpus else "cpu",
        user=header.user.partition(":")[0],
        experiment=f"{home_id}/{header.id}",
        slots=gpus or 1,
        priority=PRIORITY if resources.priority is None else resources.priority,
        weight=resources.weight,
        max_slots=resources.max_slots if gpus else None,
        waiting={},
    )


@dataclass(slots=True)
class _Trial:
    since: float
    asked: float


class SlotQueue:
    """Where the trials of one experiment wait. They are alike, so they go in the order in which they came.

    The directory is `lock_directory()`, which all controllers of the host share.
    """

    def __init__(self, directory: Path) -> None:
        self.tickets = Tickets(directory / "detbuild-slots")
        self._lock = UserLock(directory)
        self._turns = _Turns()
        self._waiting: dict[int, _Trial] = {}
        self._given: dict[int, float] = {}  # trials that were given slots: since when they had waited
        self._left: dict[str, float] | None = None  # trial -> since when, by an earlier controller's ticket
        self._look_at = 0.0

    def lock(self) -> AbstractContextManager[bool]:
        """Keep the user's other controllers out while asking, and until the container is created."""
        return self._lock.held()

    def waits(self, trial_id: int) -> bool:
        """Whether the trial has asked, and got nothing so far."""
        return trial_id in self._waiting

    def due(self, trial_id: int, now: float) -> bool:
        """Whether a trial that waits should ask again: the first of them does, every now and then."""
        self._waiting[trial_id].asked = now
        return trial_id == self._first(now) and now >= self._look_at

    def freed(self) -> None:
        """A container of this experiment has ended: what it held may be the next one's."""
        self._look_at = 0.0

    def ask(
        self, wanted: Ticket, trial_id: int, look: Callable[[], Stock], *, now: float
    ) -> tuple[tuple[Gpu, ...], str]:
        """Return the GPUs that the trial may have now, or what it waits for; a CPU slot has no name.

        Args:
            wanted: What the experiment asks for.
            trial_id: The trial that asks.
            look: Takes stock; only the first trial of those that wait needs to.
            now: Seconds on the host's clock.

        Raises:
            EngineError: The engine is away.
        """
        self._enter(wanted.experiment, trial_id, now)
        if trial_id != self._first(now):
            return (), BEHIND
        stock = look()
        wanted = _limited(wanted, stock)
        ticket = self._ticket(wanted, now)
        line = self._line(stock, ticket, now)
        handed = line.share()
        if granted := handed.granted.get(ticket.experiment):
            self._given[trial_id] = self._waiting.pop(trial_id).since
            self._look_at = 0.0
            memory = served(line.memory, wait_of(ticket), now=now)
            self._show(self._ticket(wanted, now), line, memory)
            return tuple(gpu for gpu in stock.gpus if gpu.id in granted[0]), ""
        self._look_at = now + min(LOOK * max(1.0, len(line.tickets) / _MANY), _LONGEST)
        self._show(ticket, line, replace(line.memory, first=handed.kept_for))
        return (), line.why(ticket)

    def taken_back(self, trial_id: int, *, now: float) -> str:
        """Queue the trial again at its old position: another container has what it was given."""
        self._waiting = {trial_id: _Trial(self._given.pop(trial_id, now), now), **self._waiting}
        self._look_at = now + LOOK
        return "another trial was given the same slot at this moment"

    def _enter(self, experiment: str, trial_id: int, now: float) -> None:
        if self._left is None:
            self._left = self.tickets.waiting(experiment)
        since = min(self._left.pop(str(trial_id), now), now)
        self._waiting.setdefault(trial_id, _Trial(since, now)).asked = now

    def _first(self, now: float) -> int:
        """The first in the order of coming; those who have not asked for long have ended."""
        while now - self._waiting[first := next(iter(self._waiting))].asked > _GIVEN_UP:
            del self._waiting[first]
        return first

    def _ticket(self, wanted: Ticket, now: float) -> Ticket:
        fresh = {id_: trial for id_, trial in self._waiting.items() if now - trial.asked <= _GIVEN_UP}
        return replace(wanted, asked=now, waiting={str(id_): trial.since for id_, trial in fresh.items()})

    def _line(self, stock: Stock, ticket: Ticket, now: float) -> Line:
        memory = self.tickets.memory(stock.engine, stock.kind)
        others = self.tickets.others(ticket.experiment)
        line = line_of(stock, (*others, ticket), memory, now=now)
        late = self._turns.unused(line, ticket, now)
        patient = [other for other in others if _name(other, ticket) not in late]
        return line_of(stock, (*patient, ticket), memory, now=now) if late else line

    def _show(self, ticket: Ticket, line: Line, memory: Memory) -> None:
        """Let the others see the ticket, if it is of use to them, and what the host is to remember."""
        stock = line.stock
        if ticket.waiting or self.tickets.held:
            self.tickets.hold(ticket)
        self.tickets.remember(stock.engine, stock.kind, memory)


class _Turns:
    """Others whose turn it is, as this process sees it.

    One who has had it for `PASSES` seconds without starting a trial is not waited for: it hangs, or a user
    means to hold the others up with requests that take up nothing. Those of another user count as one, as it
    may show them under any number of names.
    """

    def __init__(self) -> None:
        self._turns: dict[str, tuple[float, frozenset[str]]] = {}  # name -> since when, containers by then

    def unused(self, line: Line, own: Ticket, now: float) -> frozenset[str]:
        """Names of those that have not used their turn."""
        granted = line.share().granted
        ready = {_name(ticket, own) for ticket in line.tickets if ticket.experiment in granted}
        running = _containers(line)
        late = {name for name in self._turns if self._is_late(name, running, now)}
        there = {_name(ticket, own) for ticket in line.tickets}
        self._turns = {
            name: (now, running[name]) if self._has_started(name, running) else self._turns[name]
            for name in (ready | late) & there
        }
        return frozenset(name for name in self._turns if self._is_late(name, running, now))

    def _has_started(self, name: str, running: Mapping[str, frozenset[str]]) -> bool:
        return name not in self._turns or not running[name] <= self._turns[name][1]

    def _is_late(self, name: str, running: Mapping[str, frozenset[str]], now: float) -> bool:
        return not self._has_started(name, running) and now - self._turns[name][0] > PASSES


def _name(ticket: Ticket, own: Ticket) -> str:
    return ticket.experiment if ticket.user == own.user else f"user {ticket.user}"


def _containers(line: Line) -> Mapping[str, frozenset[str]]:
    """Ids of the containers of an experiment, and of a user."""
    found: defaultdict[str, frozenset[str]] = defaultdict(frozenset)
    for container in line.stock.containers:
        for name in (experiment_of(container), f"user {container.labels.get(USER_LABEL, '')}"):
            found[name] |= {container.id}
    return found


def _limited(wanted: Ticket, stock: Stock) -> Ticket:
    """What an experiment asks for, with what its home may use of the stock."""
    if stock.kind == "cpu":
        return replace(wanted, engine=stock.engine, limit=stock.limit)
    own = tuple(gpu.id for gpu in usable(stock.gpus))
    return replace(wanted, engine=stock.engine, usable=None if len(own) == stock.total else own)
