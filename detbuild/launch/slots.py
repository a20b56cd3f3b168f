"""A controller's part of the host's slot queue: requests slots, waits in fair order, and reports why.

Slots in use are those of containers that have not ended, so a slot is freed with its container, even if the
controller has died. Lock, requests and memory only decide who is next: without them no GPU is given
twice either.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from detbuild.launch.gpus import usable
from detbuild.launch.hostlock import UserLock
from detbuild.launch.line import BEHIND, PASSES, queue_order, wait_of
from detbuild.launch.plan import USER_LABEL
from detbuild.launch.share import PRIORITY, served
from detbuild.launch.stock import experiment_of
from detbuild.launch.tickets import SlotRequest, SlotRequests

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.launch.gpus import Gpu
    from detbuild.launch.line import QueueOrder
    from detbuild.launch.share import Memory
    from detbuild.launch.stock import Inventory
    from detbuild.store.experiment_dir import Header

POLL: Final = 2.0  # seconds between two polls of a controller with queued trials
_MANY: Final = 20  # queued experiments; with more, each polls less often
_LONGEST: Final = 6.0  # seconds between two polls
_GIVEN_UP: Final = 5.0  # seconds without a poll after which a trial leaves the queue


def slot_request(config: ExperimentConfig, header: Header, home_id: str) -> SlotRequest:
    """Return the slot request of an experiment, without waiting trials."""
    resources = config.resources
    gpus = resources.slots_per_trial
    return SlotRequest(
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
    """The queue of one experiment's trials, which are all alike: first in, first out.

    The directory is `lock_directory()`, which all controllers of the host share.
    """

    def __init__(self, directory: Path) -> None:
        self.requests = SlotRequests(directory / "detbuild-slots")
        self._lock = UserLock(directory)
        self._turns = _Turns()
        self._waiting: dict[int, _Trial] = {}
        self._given: dict[int, float] = {}  # trials with slots -> start of their wait
        self._left: dict[str, float] | None = (
            None  # trial -> start of its wait, from an earlier controller's request
        )
        self._poll_at = 0.0

    def lock(self) -> AbstractContextManager[bool]:
        """Lock out the user's other controllers while allocating, until the container is created."""
        return self._lock.held()

    def waits(self, trial_id: int) -> bool:
        """Whether the trial is queued."""
        return trial_id in self._waiting

    def due(self, trial_id: int, now: float) -> bool:
        """Whether a queued trial should poll again; only the first one does."""
        self._waiting[trial_id].asked = now
        return trial_id == self._first(now) and now >= self._poll_at

    def freed(self) -> None:
        """Poll at once: a container of this experiment has ended and freed its slots."""
        self._poll_at = 0.0

    def ask(
        self, wanted: SlotRequest, trial_id: int, take: Callable[[], Inventory], *, now: float
    ) -> tuple[tuple[Gpu, ...], str]:
        """Return the GPUs allocated to the trial, or why it is queued; a CPU slot has no name.

        Args:
            wanted: The experiment's slot request.
            trial_id: The trial.
            take: Returns the inventory; called only for the first queued trial.
            now: Seconds on the host's clock.

        Raises:
            EngineError: The engine is unavailable.
        """
        self._enter(wanted.experiment, trial_id, now)
        if trial_id != self._first(now):
            return (), BEHIND
        inventory = take()
        wanted = _limited(wanted, inventory)
        request = self._request(wanted, now)
        order = self._order(inventory, request, now)
        handed = order.fair_share()
        if granted := handed.granted.get(request.experiment):
            self._given[trial_id] = self._waiting.pop(trial_id).since
            self._poll_at = 0.0
            memory = served(order.memory, wait_of(request), now=now)
            self._show(self._request(wanted, now), order, memory)
            return tuple(gpu for gpu in inventory.gpus if gpu.id in granted[0]), ""
        self._poll_at = now + min(POLL * max(1.0, len(order.requests) / _MANY), _LONGEST)
        self._show(request, order, replace(order.memory, first=handed.kept_for))
        return (), order.why(request)

    def requeue(self, trial_id: int, *, now: float) -> str:
        """Queue the trial again at its old position: another container has what it was given."""
        self._waiting = {trial_id: _Trial(self._given.pop(trial_id, now), now), **self._waiting}
        self._poll_at = now + POLL
        return "another trial got the same slot at the same moment"

    def _enter(self, experiment: str, trial_id: int, now: float) -> None:
        if self._left is None:
            self._left = self.requests.waiting(experiment)
        since = min(self._left.pop(str(trial_id), now), now)
        self._waiting.setdefault(trial_id, _Trial(since, now)).asked = now

    def _first(self, now: float) -> int:
        """Return the first trial of the queue, after dropping those that no longer poll."""
        while now - self._waiting[first := next(iter(self._waiting))].asked > _GIVEN_UP:
            del self._waiting[first]
        return first

    def _request(self, wanted: SlotRequest, now: float) -> SlotRequest:
        fresh = {id_: trial for id_, trial in self._waiting.items() if now - trial.asked <= _GIVEN_UP}
        return replace(wanted, asked=now, waiting={str(id_): trial.since for id_, trial in fresh.items()})

    def _order(self, inventory: Inventory, request: SlotRequest, now: float) -> QueueOrder:
        memory = self.requests.memory(inventory.engine, inventory.kind)
        others = self.requests.others(request.experiment)
        order = queue_order(inventory, (*others, request), memory, now=now)
        late = self._turns.unused(order, request, now)
        patient = [other for other in others if _name(other, request) not in late]
        return queue_order(inventory, (*patient, request), memory, now=now) if late else order

    def _show(self, request: SlotRequest, order: QueueOrder, memory: Memory) -> None:
        """Publish the request if it matters to others, and the memory."""
        inventory = order.inventory
        if request.waiting or self.requests.held:
            self.requests.hold(request)
        self.requests.remember(inventory.engine, inventory.kind, memory)


class _Turns:
    """The turns of others, as this process sees them.

    One that starts no trial within `PASSES` seconds of its turn is skipped: it hangs, or a user blocks
    others with requests that it never uses. All requests of another user count as one, as it
    may publish any number of them.
    """

    def __init__(self) -> None:
        self._turns: dict[str, tuple[float, frozenset[str]]] = {}  # name -> since when, containers by then

    def unused(self, order: QueueOrder, own: SlotRequest, now: float) -> frozenset[str]:
        """Return the names of those that have not used their turn."""
        granted = order.fair_share().granted
        ready = {_name(request, own) for request in order.requests if request.experiment in granted}
        running = _containers(order)
        late = {name for name in self._turns if self._is_late(name, running, now)}
        there = {_name(request, own) for request in order.requests}
        self._turns = {
            name: (now, running[name]) if self._has_started(name, running) else self._turns[name]
            for name in (ready | late) & there
        }
        return frozenset(name for name in self._turns if self._is_late(name, running, now))

    def _has_started(self, name: str, running: Mapping[str, frozenset[str]]) -> bool:
        return name not in self._turns or not running[name] <= self._turns[name][1]

    def _is_late(self, name: str, running: Mapping[str, frozenset[str]], now: float) -> bool:
        return not self._has_started(name, running) and now - self._turns[name][0] > PASSES


def _name(request: SlotRequest, own: SlotRequest) -> str:
    return request.experiment if request.user == own.user else f"user {request.user}"


def _containers(order: QueueOrder) -> Mapping[str, frozenset[str]]:
    """Return the container IDs of each experiment and each user."""
    found: defaultdict[str, frozenset[str]] = defaultdict(frozenset)
    for container in order.inventory.containers:
        for name in (experiment_of(container), f"user {container.labels.get(USER_LABEL, '')}"):
            found[name] |= {container.id}
    return found


def _limited(wanted: SlotRequest, inventory: Inventory) -> SlotRequest:
    """Add the limits of the home to a slot request."""
    if inventory.kind == "cpu":
        return replace(wanted, engine=inventory.engine, limit=inventory.limit)
    own = tuple(gpu.id for gpu in usable(inventory.gpus))
    return replace(wanted, engine=inventory.engine, usable=None if len(own) == inventory.total else own)
