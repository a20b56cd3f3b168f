"""A controller's part of the host's slot queue: requests slots, waits in fair order, and reports why.

Slots in use are those of containers that have not ended, so a slot is freed with its container, even if the
controller has died. Lock, requests and memory only decide who is next: without them no GPU is given
twice either.
"""

from __future__ import annotations

import pwd
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from detbuild.config.host import host_config
from detbuild.runtime.fair_share import (
    FairShare,
    Holding,
    Memory,
    Wait,
    fair_share,
    in_order,
    remember,
    served,
)
from detbuild.runtime.gpus import Gpu, discover, free, held, unknown_ids, usable
from detbuild.runtime.labels import (
    CPU_LABEL,
    GPU_LABEL,
    MOST_SLOTS,
    TRIAL_LABEL,
    USER_LABEL,
    cpu_slots_of,
    experiment_of,
    gpus_of,
    weight_of,
)
from detbuild.runtime.slot_requests import SlotRequest, SlotRequests, UserLock
from detbuild.units import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from detbuild.engine.protocol import Containers, ContainerState, EngineInfo
    from detbuild.runtime.protocol import Demand
    from detbuild.runtime.slot_requests import Kind

POLL: Final = 2.0  # seconds between two polls of a controller with queued trials
_MANY: Final = 20  # queued experiments; with more, each polls less often
_LONGEST: Final = 6.0  # seconds between two polls
_GIVEN_UP: Final = 5.0  # seconds without a poll after which a trial leaves the queue
BEHIND: Final = "after other trials of its experiment"  # why all but the next trial of one are queued
_NAMES: Final[Mapping[str, str]] = {"cpu": "CPU slot", "gpu": "GPU"}
_PASSES: Final = (
    15.0  # seconds without a poll after which a turn passes to the next: its holder is stopped or hangs
)
_MEMORY_OF_A_SLOT: Final = 2 << 30  # bytes


def slot_request(demand: Demand, engine: str) -> SlotRequest:
    """Return the slot request of an experiment on an engine, without waiting trials."""
    return SlotRequest(
        engine=engine,
        kind="gpu" if demand.slots else "cpu",
        user=demand.user,
        experiment=f"{demand.key.home_id}/{demand.key.experiment_id}",
        slots=demand.slots or 1,
        priority=demand.priority,
        weight=demand.weight,
        max_slots=demand.max_slots if demand.slots else None,
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
            memory = served(order.memory, _wait_of(request), now=now)
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

    One that starts no trial within `_PASSES` seconds of its turn is skipped: it hangs, or a user blocks
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
        return not self._has_started(name, running) and now - self._turns[name][0] > _PASSES


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
        wait = _wait_of(request)
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
        own = _wait_of(request)
        needed = f", {request.slots} needed" if request.slots > 1 else ""
        usage = f"{self.inventory.usage(own.usable)}{needed}"
        rivals = [wait for wait in self.waits if _compete(wait, own)]
        first = next(self._turns(rivals), own)
        if first.experiment == own.experiment:
            return usage
        return f"{usage}; next after experiment {_number_of(first.experiment)} ({name_of(first.user)})"

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
        and -_PASSES <= now - request.asked <= _PASSES
        for waiting in [_unserved(request, inventory)]
        if waiting.waiting
    )
    inventory = inventory.widened(request.limit for request in there if request.limit is not None)
    waits = tuple(_wait_of(request) for request in there)
    return QueueOrder(
        inventory=inventory, requests=there, memory=remember(memory, waits, inventory.holdings, now=now)
    )


def _unserved(request: SlotRequest, inventory: Inventory) -> SlotRequest:
    served = inventory.served
    left = {t: since for t, since in request.waiting.items() if (request.experiment, t) not in served}
    return replace(request, waiting=left)


def _wait_of(request: SlotRequest) -> Wait:
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


def _number_of(experiment: str) -> str:
    """Return the experiment's ID."""
    return experiment.partition("/")[2]


def name_of(user: str) -> str:
    """Return the user name of a UID, if the host has one."""
    try:
        return pwd.getpwuid(int(user)).pw_name
    except (ValueError, KeyError, OverflowError):
        return user or "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a home may use of the host, from its config file."""

    cpu_trials: int | None = None  # CPU slots; None for the default of `cpu_slots`
    gpus: tuple[str, ...] | None = None  # names as in `discover`; None for all


def host_limits(home: Path) -> Limits:
    """Return the limits of a home, from its config file.

    Raises:
        ConfigError: The file is invalid.
    """
    host = host_config(home)
    return Limits(cpu_trials=host.cpu_trials, gpus=host.gpus)


@dataclass(frozen=True, kw_only=True, slots=True)
class Inventory:
    """All slots of one kind, and the containers that use them."""

    kind: Kind
    engine: str  # ID
    limit: int  # slots that this home may use
    total: int  # slots of the host
    containers: tuple[ContainerState, ...] = ()  # that use slots
    gpus: tuple[Gpu, ...] = ()  # all GPUs, usable or not

    @property
    def free(self) -> tuple[str, ...]:
        """Return the names of the free slots; CPU slots are numbered."""
        if self.kind == "cpu":
            return tuple(map(str, range(len(self.containers) + 1, self.total + 1)))
        in_use = held(self.containers)
        return tuple(gpu.id for gpu in self.gpus if gpu.id not in in_use) if not self.renamed else ()

    @property
    def free_gpus(self) -> tuple[Gpu, ...]:
        """Return the free GPUs that this home may use."""
        return free(self.gpus, held(self.containers))

    @property
    def renamed(self) -> list[str]:
        """Return GPUs in use under IDs that the host no longer has."""
        return unknown_ids(self.gpus, held(self.containers)) if self.kind == "gpu" else []

    def usage(self, usable: Iterable[str] | None = None) -> str:
        """Return how many slots are in use or free, as text.

        Args:
            usable: GPUs that a home may use; None for all.
        """
        if self.kind == "cpu":
            return _cpu_usage(len(self.containers), self.total)
        if self.renamed:
            return f"a container holds {', '.join(self.renamed)}, which has another name now"
        names = {gpu.id for gpu in self.gpus}
        own = names if usable is None else names & set(usable)
        count = len(own.intersection(self.free))
        where = "" if own == names else " that its home may use"
        if count or not own:
            return f"{count} of {len(own)} GPUs{where} free"
        return f"all {len(own)} GPUs{where} in use" if len(own) > 1 else f"the only GPU{where} is in use"

    def used_by(self, home: str) -> int:
        """Return the slots in use by the experiments of a home."""
        return sum(holding.slots for holding in self.holdings if holding.home == home)

    def widened(self, limits: Iterable[int]) -> Inventory:
        """Return a copy with as many CPU slots as the largest limit of a home.

        Each home uses at most its own limit, and all together at most the largest.
        """
        most = max((min(limit, MOST_SLOTS) for limit in limits), default=0)
        return replace(self, total=max(self.total, most)) if self.kind == "cpu" else self

    @property
    def holdings(self) -> tuple[Holding, ...]:
        return tuple(
            Holding(
                experiment=experiment_of(container),
                user=container.labels.get(USER_LABEL, ""),
                slots=len(gpus_of(container)) or 1,
                weight=weight_of(container),
            )
            for container in self.containers
        )

    @property
    def served(self) -> frozenset[tuple[str, str]]:
        """Return (experiment, trial) of all trials with slots, whose requests may be outdated."""
        return frozenset((experiment_of(c), c.labels.get(TRIAL_LABEL, "")) for c in self.containers)


def cpu_slots(info: EngineInfo, cpu_trials: int | None) -> int:
    """Return the CPU slots of a home: `cpu_trials`, by default one for each core with 2 GiB of memory.

    With fewer, cores would be idle outside large matrix products; with more, trials would only wait for
    each other. A single trial may still use the whole host.
    """
    return cpu_trials or max(1, min(info.cpus, info.memory // _MEMORY_OF_A_SLOT))


def take_inventory(
    kind: Kind, engine: Containers, info: EngineInfo, nvidia_smi: Callable[[], str], limits: Limits
) -> Inventory:
    """Build the inventory from the engine's containers.

    Raises:
        EngineError: The engine is unavailable.
    """
    if kind == "cpu":
        return cpu_inventory(cpu_slots(info, limits.cpu_trials), engine.find({CPU_LABEL: ""}), info.id)
    return gpu_inventory(discover(info, nvidia_smi(), limits.gpus), engine.find({GPU_LABEL: ""}), info.id)


def cpu_inventory(limit: int, containers: Iterable[ContainerState], engine: str = "") -> Inventory:
    """Build the inventory of CPU slots from all containers with CPU_LABEL, the limit of their home."""
    users = tuple(container for container in containers if container.lives)
    inventory = Inventory(kind="cpu", engine=engine, limit=limit, total=limit, containers=users)
    return inventory.widened(map(cpu_slots_of, users))


def gpu_inventory(gpus: Sequence[Gpu], containers: Iterable[ContainerState], engine: str = "") -> Inventory:
    """Build the inventory of GPUs from all containers with the GPU label."""
    return Inventory(
        kind="gpu",
        engine=engine,
        limit=len(usable(gpus)),
        total=len(gpus),
        containers=tuple(container for container in containers if container.lives),
        gpus=tuple(gpus),
    )


def _cpu_usage(in_use: int, total: int) -> str:
    if in_use > total:
        return f"{in_use} CPU slots in use, the limit is {total}"
    if in_use < total:
        return f"{in_use} of {total} CPU slots in use"
    return f"all {total} CPU slots in use" if total > 1 else "the only CPU slot is in use"
