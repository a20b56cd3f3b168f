"""The slots of a host, as its engine has them now: GPUs, and places for trials on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from detbuild.launch.gpus import LABEL, Gpu, discover, free, held, strange, usable
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

_MEMORY_OF_A_PLACE: Final = 2 << 30  # bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What of the host detbuild may use, by the config file of the home."""

    cpu_trials: int | None = None  # trials without GPUs at once; None leaves it to `cpu_places`
    gpus: tuple[str, ...] | None = None  # names as in `discover`; None for all


@dataclass(frozen=True, kw_only=True, slots=True)
class Stock:
    """All slots of one kind, and who holds them."""

    kind: Kind
    engine: str  # its id
    total: int
    free: int
    said: str  # what is free, for people
    containers: tuple[ContainerState, ...] = ()  # that hold some
    gpus: tuple[Gpu, ...] = ()  # all of them, of a stock of GPUs
    free_gpus: tuple[Gpu, ...] = ()

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
        """(experiment, trial) of all that have what they asked for, whatever their tickets still say."""
        return frozenset((experiment_of(c), c.labels.get(TRIAL_LABEL, "")) for c in self.containers)


def experiment_of(container: ContainerState) -> str:
    """As in a ticket: `<home id>/<number>`."""
    return f"{container.labels.get(HOME_LABEL, '')}/{container.labels.get(EXPERIMENT_LABEL, '')}"


def cpu_places(info: EngineInfo, cpu_trials: int | None) -> int:
    """How many trials without GPUs run at once: `cpu_trials`, else one for each core with 2 GiB of memory.

    Fewer would leave cores idle in everything that is not one large matrix product; more would only wait for
    each other. A trial alone may still use the whole host.
    """
    return cpu_trials or max(1, min(info.cpus, info.memory // _MEMORY_OF_A_PLACE))


def take_stock(
    kind: Kind, engine: Engine, info: EngineInfo, nvidia_smi: Callable[[], str], limits: Limits
) -> Stock:
    """Ask the engine in use for everything that holds a slot.

    Raises:
        EngineError: The engine is away.
    """
    if kind == "cpu":
        return cpu_stock(cpu_places(info, limits.cpu_trials), engine.find({CPU_LABEL: ""}), info.id)
    return gpu_stock(discover(info, nvidia_smi(), limits.gpus), engine.find({LABEL: ""}), info.id)


def cpu_stock(places: int, containers: Iterable[ContainerState], engine: str = "") -> Stock:
    """Places on the CPU; `containers` are all that carry CPU_LABEL."""
    holders = tuple(container for container in containers if container.lives)
    taken = len(holders)
    return Stock(
        kind="cpu",
        engine=engine,
        total=places,
        free=max(0, places - taken),
        said=f"{taken} of {places} {'is' if taken == 1 else 'are'} taken",
        containers=holders,
    )


def gpu_stock(gpus: Sequence[Gpu], containers: Iterable[ContainerState], engine: str = "") -> Stock:
    """GPUs; `containers` are all that carry the label of GPUs."""
    holders = tuple(container for container in containers if container.lives)
    taken = held(holders)
    odd, there = strange(gpus, taken), free(gpus, taken)
    said = f"{len(there)} of {len(usable(gpus))} on this host {'is' if len(there) == 1 else 'are'} free"
    return Stock(
        kind="gpu",
        engine=engine,
        total=len(usable(gpus)),
        free=len(there),
        said=f"a container holds {', '.join(odd)}, which has another name by now" if odd else said,
        containers=holders,
        gpus=tuple(gpus),
        free_gpus=there,
    )


def _weight(container: ContainerState) -> float:
    try:
        return float(container.labels.get(WEIGHT_LABEL, "1"))
    except ValueError:
        return 1.0
