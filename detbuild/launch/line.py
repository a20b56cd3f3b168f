"""The queue for slots of one kind: its order, and why each trial is queued, in words."""

from __future__ import annotations

import pwd
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from detbuild.launch.share import FairShare, Memory, Wait, fair_share, in_order, remember
from detbuild.units import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from detbuild.launch.stock import Inventory
    from detbuild.launch.tickets import SlotRequest

BEHIND: Final = "after other trials of its experiment"  # why all but the next trial of one are queued
_NAMES: Final[Mapping[str, str]] = {"cpu": "CPU slot", "gpu": "GPU"}
PASSES: Final = (
    15.0  # seconds without a poll after which a turn passes to the next: its holder is stopped or hangs
)


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueOrder:
    inventory: Inventory
    requests: tuple[SlotRequest, ...]  # of live controllers, without served trials
    memory: Memory

    @property
    def waits(self) -> tuple[Wait, ...]:
        return tuple(self._wait(request) for request in self.requests)

    def _wait(self, request: SlotRequest) -> Wait:
        """Drop a limit of the home that is not below the host's."""
        wait = wait_of(request)
        return replace(wait, limit=None) if wait.limit is None or wait.limit >= self.inventory.total else wait

    def fair_share(self) -> FairShare:
        """Allocate the free slots to the trials that may start now."""
        inventory, waits = self.inventory, self.waits
        free = (
            inventory.free[: sum(len(wait.since) for wait in waits)]
            if inventory.kind == "cpu"
            else inventory.free
        )
        return fair_share(waits, inventory.holdings, self.memory, free=free, total=inventory.total)

    def experiments(self) -> tuple[str, ...]:
        """Return the experiment of each trial that may start with the current limits, in queue order."""
        return tuple(wait.experiment for wait in self._turns(self.waits))

    def why(self, request: SlotRequest) -> str:
        """Say why the next trial of an experiment is queued."""
        return self._limited(request) or self._behind(request)

    def _limited(self, request: SlotRequest) -> str:
        """Return the limit that blocks its trials whatever others do, or ""."""
        inventory, own = self.inventory, self._wait(request)
        if not own.fits(inventory.total):
            has = f"this host has {inventory.total}"
            if own.usable is not None:
                has = f"its home may use {len(own.usable)} of {inventory.total}"
            return f"needs {counted(own.slots, _NAMES[request.kind])}, {has}"
        if any(self._turns([own])):
            return ""
        if any(self._turns([replace(own, limit=None)])):
            return f"its home uses {inventory.used_by(own.home)} of its {own.limit} CPU slots (cpu_trials)"
        return f"limited by its resources.max_slots ({request.max_slots})"

    def _behind(self, request: SlotRequest) -> str:
        """Return the usage, and the experiment that is next for the same slots."""
        own = wait_of(request)
        needed = f", {request.slots} needed" if request.slots > 1 else ""
        said = f"{self.inventory.usage(own.usable)}{needed}"
        rivals = [wait for wait in self.waits if _compete(wait, own)]
        first = next(self._turns(rivals), own)
        if first.experiment == own.experiment:
            return said
        return f"{said}; next after experiment {number_of(first.experiment)} ({name_of(first.user)})"

    def _turns(self, waits: Sequence[Wait]) -> Iterator[Wait]:
        return in_order(waits, self.inventory.holdings, self.memory, total=self.inventory.total)


def _compete(one: Wait, other: Wait) -> bool:
    """Whether the two may need the same slot."""
    return one.usable is None or other.usable is None or not one.usable.isdisjoint(other.usable)


def queue_order(
    inventory: Inventory, requests: Iterable[SlotRequest], memory: Memory, *, now: float
) -> QueueOrder:
    """Build the queue for an inventory from all slot requests of the host.

    Args:
        inventory: The current slots.
        requests: Of any engine and kind.
        memory: As of the last poll.
        now: Seconds on the host's clock.
    """
    there = tuple(
        waiting
        for request in requests
        if (request.engine, request.kind) == (inventory.engine, inventory.kind)
        and -PASSES <= now - request.asked <= PASSES
        for waiting in [_unserved(request, inventory)]
        if waiting.waiting
    )
    inventory = inventory.widened(request.limit for request in there if request.limit is not None)
    waits = tuple(wait_of(request) for request in there)
    return QueueOrder(
        inventory=inventory, requests=there, memory=remember(memory, waits, inventory.holdings, now=now)
    )


def _unserved(request: SlotRequest, inventory: Inventory) -> SlotRequest:
    served = inventory.served
    left = {t: since for t, since in request.waiting.items() if (request.experiment, t) not in served}
    return replace(request, waiting=left)


def wait_of(request: SlotRequest) -> Wait:
    """Convert a slot request for the fair-share rule."""
    return Wait(
        experiment=request.experiment,
        user=request.user,
        slots=request.slots,
        since=tuple(sorted(request.waiting.values())),
        priority=request.priority,
        weight=request.weight,
        max_slots=request.max_slots,
        limit=request.limit,
        usable=None if request.usable is None else frozenset(request.usable),
    )


def number_of(experiment: str) -> str:
    """Return the experiment's ID."""
    return experiment.partition("/")[2]


def name_of(user: str) -> str:
    """Return the user name of a UID, if the host has one."""
    try:
        return pwd.getpwuid(int(user)).pw_name
    except (ValueError, KeyError, OverflowError):
        return user or "unknown"
