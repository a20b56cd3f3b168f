"""The inventory of a host's slots, from its engine: GPUs and CPU slots."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from detbuild.launch.gpus import LABEL, Gpu, discover, free, held, unknown_ids, usable
from detbuild.launch.plan import (
    CPU_LABEL,
    EXPERIMENT_LABEL,
    HOME_LABEL,
    TRIAL_LABEL,
    USER_LABEL,
    WEIGHT_LABEL,
)
from detbuild.launch.share import Holding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from detbuild.engine.protocol import ContainerState, Engine, EngineInfo
    from detbuild.launch.tickets import Kind

_MEMORY_OF_A_SLOT: Final = 2 << 30  # bytes
_MOST: Final = 1024  # CPU slots that another user's label may claim


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a home may use of the host, from its config file."""

    cpu_trials: int | None = None  # CPU slots; None for the default of `cpu_slots`
    gpus: tuple[str, ...] | None = None  # names as in `discover`; None for all


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
        most = max((min(limit, _MOST) for limit in limits), default=0)
        return replace(self, total=max(self.total, most)) if self.kind == "cpu" else self

    @property
    def holdings(self) -> tuple[Holding, ...]:
        return tuple(
            Holding(
                experiment=experiment_of(container),
                user=container.labels.get(USER_LABEL, ""),
                slots=len([gpu for gpu in container.labels.get(LABEL, "-").split(",") if gpu]),
                weight=_weight(container),
            )
            for container in self.containers
        )

    @property
    def served(self) -> frozenset[tuple[str, str]]:
        """Return (experiment, trial) of all trials with slots, whose requests may be outdated."""
        return frozenset((experiment_of(c), c.labels.get(TRIAL_LABEL, "")) for c in self.containers)


def experiment_of(container: ContainerState) -> str:
    """Return the experiment as in a slot request: `<home id>/<number>`."""
    return f"{container.labels.get(HOME_LABEL, '')}/{container.labels.get(EXPERIMENT_LABEL, '')}"


def cpu_slots(info: EngineInfo, cpu_trials: int | None) -> int:
    """Return the CPU slots of a home: `cpu_trials`, by default one for each core with 2 GiB of memory.

    With fewer, cores would be idle outside large matrix products; with more, trials would only wait for
    each other. A single trial may still use the whole host.
    """
    return cpu_trials or max(1, min(info.cpus, info.memory // _MEMORY_OF_A_SLOT))


def take_inventory(
    kind: Kind, engine: Engine, info: EngineInfo, nvidia_smi: Callable[[], str], limits: Limits
) -> Inventory:
    """Build the inventory from the engine's containers.

    Raises:
        EngineError: The engine is unavailable.
    """
    if kind == "cpu":
        return cpu_inventory(cpu_slots(info, limits.cpu_trials), engine.find({CPU_LABEL: ""}), info.id)
    return gpu_inventory(discover(info, nvidia_smi(), limits.gpus), engine.find({LABEL: ""}), info.id)


def cpu_inventory(limit: int, containers: Iterable[ContainerState], engine: str = "") -> Inventory:
    """Build the inventory of CPU slots from all containers with CPU_LABEL, the limit of their home."""
    users = tuple(container for container in containers if container.lives)
    inventory = Inventory(kind="cpu", engine=engine, limit=limit, total=limit, containers=users)
    return inventory.widened(map(_limit, users))


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


def _limit(container: ContainerState) -> int:
    value = container.labels.get(CPU_LABEL, "")
    return int(value) if value.isascii() and value.isdecimal() and len(value) < len(str(_MOST * 10)) else 0


def _weight(container: ContainerState) -> float:
    try:
        return float(container.labels.get(WEIGHT_LABEL, "1"))
    except ValueError:
        return 1.0
