"""The GPUs of a host: found, named, and kept apart between all experiments of all users of one engine."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal

from detbuild.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from detbuild.engine.protocol import ContainerState, Engine, EngineInfo

LABEL = "detbuild.gpus"  # comma-separated ids; a container that carries it and has not ended holds them
_LOOKS: Final = 10  # at containers that want the same GPUs
_BETWEEN_LOOKS: Final = 0.2  # seconds


@dataclass(frozen=True, slots=True)
class Gpu:
    id: str
    driver: Literal["nvidia", "cdi"]
    names: frozenset[str] = field(default=frozenset(), compare=False)  # all that people call it
    usable: bool = field(default=True, compare=False)  # detbuild may give it away


def discover(info: EngineInfo, nvidia_smi: str, only: Collection[str] | None = None) -> tuple[Gpu, ...]:
    """The GPUs of the host: the engine's CDI devices where it has any, else what `nvidia-smi -L` lists.

    A GPU that is divided (MIG) counts as its parts.

    Args:
        info: Of the engine that is to give them to containers.
        nvidia_smi: What `nvidia-smi -L` says; where there are CDI devices, their UUIDs are known from it.
        only: Those that may be used, by CDI name, UUID or number; a divided GPU stands for all its parts.
    """
    listed = _listed(nvidia_smi)
    found = [_cdi_gpu(name, listed) for name in _cdi(info.cdi_devices)] or [
        Gpu(uuid, "nvidia", _names(index, listed)) for index, uuid in _undivided(listed).items()
    ]
    return tuple(
        gpu if only is None else replace(gpu, usable=not gpu.names.isdisjoint(only)) for gpu in found
    )


def _cdi(names: Iterable[str]) -> list[str]:
    """CDI gives each device several names (index, UUID, "all"): take each device once."""
    gpus = [name for name in names if name.partition("=")[0].endswith("/gpu")]
    numbered = [name for name in gpus if re.fullmatch(r"\d+(:\d+)?", name.partition("=")[2])]
    named = [name for name in gpus if not name.endswith("=all") and name not in numbered]
    return sorted(numbered, key=_by_number) or sorted(named)


def _by_number(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.partition("=")[2].split(":"))


def _cdi_gpu(name: str, listed: Mapping[str, str]) -> Gpu:
    short = name.partition("=")[2]
    index = next((index for index, uuid in listed.items() if uuid == short), short)
    return Gpu(name, "cdi", frozenset({name, short}) | _names(index, listed))


def _names(index: str, listed: Mapping[str, str]) -> frozenset[str]:
    """Number and UUID of a GPU, and those of the GPU that it is a part of."""
    numbers = {index, index.partition(":")[0]}
    return frozenset(numbers | {listed[number] for number in numbers if number in listed})


def _listed(nvidia_smi: str) -> dict[str, str]:
    """Number -> UUID from lines such as `GPU 0: NVIDIA H100 (UUID: GPU-...)`, each followed by its MIG parts.

    Parts are numbered as CDI does it: "0:1" is part 1 of GPU 0.
    """
    found: dict[str, str] = {}
    whole = ""
    for line in nvidia_smi.splitlines():
        gpu = re.match(r"\s*GPU (\d+):.*\(UUID: (GPU-[^)]+)\)", line)
        part = re.match(r"\s*MIG\b.*Device +(\d+): \(UUID: (MIG-[^)]+)\)", line)
        if gpu is not None:
            whole = gpu[1]
            found[whole] = gpu[2]
        elif part is not None:
            found[f"{whole}:{part[1]}"] = part[2]
    return found


def _undivided(listed: Mapping[str, str]) -> dict[str, str]:
    divided = {index.partition(":")[0] for index in listed if ":" in index}
    return {index: uuid for index, uuid in listed.items() if index not in divided}


def held(containers: Iterable[ContainerState]) -> frozenset[str]:
    """The GPUs that containers hold, running or about to."""
    labels = (container.labels.get(LABEL, "") for container in containers if container.lives)
    return frozenset(gpu for label in labels for gpu in label.split(",") if gpu)


def rivals(
    container: str, gpus: Collection[str], containers: Iterable[ContainerState]
) -> list[ContainerState]:
    """Containers other than `container` that hold one of its GPUs too."""
    others = (other for other in containers if other.id != container)
    return [other for other in others if not held([other]).isdisjoint(gpus)]


def won(engine: Engine, container: str, gpus: Collection[str], wait: Callable[[float], None]) -> bool:
    """Whether a container that was created has its GPUs for itself, and may be started.

    Of two containers that were created at once at least one sees the other here, and leaves it the GPUs. The
    one whose id comes first may wait for the other to be removed, so that not both give up.

    Raises:
        EngineError: The engine is away.
    """
    for _ in range(_LOOKS):
        others = rivals(container, gpus, engine.find({LABEL: ""})) if gpus else []
        if not others:
            return True
        if any(other.status != "created" or other.id < container for other in others):
            return False
        wait(_BETWEEN_LOOKS)
    return False


def free(gpus: Sequence[Gpu], taken: frozenset[str]) -> tuple[Gpu, ...]:
    """Those that may be given away; none while it is not known which ones are taken."""
    if unknown_ids(gpus, taken):
        return ()
    return tuple(gpu for gpu in usable(gpus) if gpu.id not in taken)


def usable(gpus: Sequence[Gpu]) -> tuple[Gpu, ...]:
    return tuple(gpu for gpu in gpus if gpu.usable)


def unknown_ids(gpus: Sequence[Gpu], taken: frozenset[str]) -> list[str]:
    """Held GPUs of unknown names.

    Names change when the host gets or loses a CDI specification, so any of the known ones may be meant.
    """
    return sorted(taken - {gpu.id for gpu in gpus})


def shortage(gpus: Sequence[Gpu], slots: int) -> str:
    """Why the host can never give `slots` GPUs; "" when it can."""
    ours = len(usable(gpus))
    if ours >= slots:
        return ""
    if len(gpus) >= slots:
        return f"detbuild may use {ours} of the {len(gpus)} on this host"
    return f"this host has only {len(gpus)}" if gpus else "no GPU was found on this host"


def shortage_error(gpus: Sequence[Gpu], slots: int) -> EngineError | None:
    """The error to raise when the host can never give `slots` GPUs."""
    why = shortage(gpus, slots)
    if not why:
        return None
    asks = f"resources.slots_per_trial asks for {slots} GPU{'s' if slots > 1 else ''}"
    cpu = "set `resources.slots_per_trial: 0` to train on the CPU"
    hint = f"{cpu}; `detbuild doctor` looks for GPUs"
    if len(gpus) >= slots:
        hint = f"name more of them under `gpus` in config.yaml of detbuild's home, or {cpu}"
    return EngineError(f"{asks}, and {why}", hint=hint)
