"""A controller's part of the host's queue: it asks for slots, waits in the fair order, and says for what.

What is held is what containers say that have not ended, so a slot comes back with its container, whatever
becomes of the controller. Tickets and memory only decide who is next: without them no slot is given twice
either.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from detbuild.launch.hostlock import exclusive
from detbuild.launch.line import behind, line_of, wait_of
from detbuild.launch.share import PRIORITY, served
from detbuild.launch.tickets import Ticket, Tickets

if TYPE_CHECKING:
    from collections.abc import Callable
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
        self._lock = directory / "detbuild-gpus.lock"
        self._waiting: dict[int, _Trial] = {}
        self._left: dict[str, float] | None = None  # trial -> since when, by an earlier controller's ticket
        self._look_at = 0.0

    def lock(self) -> AbstractContextManager[None]:
        """Hold it while asking, and until the container is made.

        Raises:
            EngineError: somebody else does, and does not let go.
        """
        return exclusive(self._lock)

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
        """Return the GPUs that the trial may have now, or what it waits for; a place on the CPU has no name.

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
            return (), behind(wanted)
        stock, ticket = look(), self._ticket(wanted, now)
        line = self._line(stock, ticket, now)
        handed = line.share()
        if handed.granted.get(ticket.experiment):
            del self._waiting[trial_id]
            self._look_at = 0.0
            memory = served(line.memory, wait_of(ticket), now=now)
            self._show(self._ticket(wanted, now), line, memory)
            return stock.free_gpus[: ticket.slots], ""
        self._look_at = now + min(LOOK * max(1.0, len(line.tickets) / _MANY), _LONGEST)
        self._show(ticket, line, replace(line.memory, first=handed.kept_for))
        return (), line.why(ticket)

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
        own = replace(ticket, engine=stock.engine)
        memory = self.tickets.memory(stock.engine, stock.kind)
        return line_of(stock, (*self.tickets.others(ticket.experiment), own), memory, now=now)

    def _show(self, ticket: Ticket, line: Line, memory: Memory) -> None:
        """Let the others see the ticket, if it is of use to them, and what the host is to remember."""
        stock = line.stock
        if ticket.waiting or self.tickets.held:
            self.tickets.hold(replace(ticket, engine=stock.engine))
        self.tickets.remember(stock.engine, stock.kind, memory)
