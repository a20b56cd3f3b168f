"""The GPUs of a host: discovery, names, and exclusive use among all experiments of one engine.

Before the build, it is checked that this host can provide what a config requests.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from detbuild.config.environment import reserved
from detbuild.config.storage import SharedFs
from detbuild.config.yaml import ConfigErrors, KeyPath, Problem
from detbuild.errors import EngineError
from detbuild.runtime.labels import GPU_LABEL, gpus_of
from detbuild.store.files import file_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.engine.protocol import Containers, ContainerState, EngineInfo

_POLLS: Final = 10  # of containers with the same GPUs
_BETWEEN_POLLS: Final = 0.2  # seconds
_LONGEST: Final = 40  # characters of a path in a message


@dataclass(frozen=True, slots=True)
class Gpu:
    id: str
    names: frozenset[str] = field(default=frozenset(), compare=False)  # all names that a user may give
    usable: bool = field(default=True, compare=False)  # within the limits of the home


def driver_of(gpu: str) -> Literal["nvidia", "cdi"]:
    """Return the driver that knows a GPU by this ID: only CDI names have an equals sign."""
    return "cdi" if "=" in gpu else "nvidia"


def discover(info: EngineInfo, nvidia_smi: str, only: Collection[str] | None = None) -> tuple[Gpu, ...]:
    """Return the host's GPUs: the engine's CDI devices if it has any, else those of `nvidia-smi -L`.

    A MIG GPU is replaced by its parts.

    Args:
        info: The engine.
        nvidia_smi: Output of `nvidia-smi -L`; with CDI devices it gives their UUIDs.
        only: Usable GPUs by CDI name, UUID or number; a MIG GPU stands for all its parts.
    """
    listed = _listed(nvidia_smi)
    found = [_cdi_gpu(name, listed) for name in _cdi(info.cdi_devices)] or [
        Gpu(uuid, _names(index, listed)) for index, uuid in _undivided(listed).items()
    ]
    return tuple(
        gpu if only is None else replace(gpu, usable=not gpu.names.isdisjoint(only)) for gpu in found
    )


def _cdi(names: Iterable[str]) -> list[str]:
    """Return each CDI device once: it has several names (index, UUID, "all")."""
    gpus = [name for name in names if name.partition("=")[0].endswith("/gpu")]
    numbered = [name for name in gpus if re.fullmatch(r"\d+(:\d+)?", name.partition("=")[2])]
    named = [name for name in gpus if not name.endswith("=all") and name not in numbered]
    return sorted(numbered, key=_by_number) or sorted(named)


def _by_number(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.partition("=")[2].split(":"))


def _cdi_gpu(name: str, listed: Mapping[str, str]) -> Gpu:
    short = name.partition("=")[2]
    index = next((index for index, uuid in listed.items() if uuid == short), short)
    return Gpu(name, frozenset({name, short}) | _names(index, listed))


def _names(index: str, listed: Mapping[str, str]) -> frozenset[str]:
    """Return number and UUID of a GPU, and of the GPU that it is a part of."""
    numbers = {index, index.partition(":")[0]}
    return frozenset(numbers | {listed[number] for number in numbers if number in listed})


def _listed(nvidia_smi: str) -> dict[str, str]:
    """Map numbers to UUIDs, from lines such as `GPU 0: NVIDIA H100 (UUID: GPU-...)` and their MIG parts.

    Parts are numbered as in CDI: "0:1" is part 1 of GPU 0.
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
    """Return the GPUs in use by containers that run or are about to."""
    return frozenset(gpu for container in containers if container.lives for gpu in gpus_of(container))


def rivals(
    container: str, gpus: Collection[str], containers: Iterable[ContainerState]
) -> list[ContainerState]:
    """Return the other containers that hold one of the GPUs of `container`."""
    others = (other for other in containers if other.id != container)
    return [other for other in others if not held([other]).isdisjoint(gpus)]


def won(engine: Containers, container: str, gpus: Collection[str], wait: Callable[[float], None]) -> bool:
    """Whether a new container has its GPUs exclusively and may be started.

    If two containers were created at once, at least one sees the other here and gives way. The one with the
    lower ID waits for the other to be removed, so that not both give way.

    Raises:
        EngineError: The engine is unavailable.
    """
    for _ in range(_POLLS):
        others = rivals(container, gpus, engine.find({GPU_LABEL: ""})) if gpus else []
        if not others:
            return True
        if any(other.status != "created" or other.id < container for other in others):
            return False
        wait(_BETWEEN_POLLS)
    return False


def free(gpus: Sequence[Gpu], in_use: frozenset[str]) -> tuple[Gpu, ...]:
    """Return the GPUs that are free; none while some in use have unknown names."""
    if unknown_ids(gpus, in_use):
        return ()
    return tuple(gpu for gpu in usable(gpus) if gpu.id not in in_use)


def usable(gpus: Sequence[Gpu]) -> tuple[Gpu, ...]:
    return tuple(gpu for gpu in gpus if gpu.usable)


def unknown_ids(gpus: Sequence[Gpu], in_use: frozenset[str]) -> list[str]:
    """Return IDs in use that no known GPU has.

    IDs change when the host gets or loses a CDI specification, so each may mean any of the known GPUs.
    """
    return sorted(in_use - {gpu.id for gpu in gpus})


def shortage(gpus: Sequence[Gpu], slots: int) -> str:
    """Return why the host can never provide `slots` GPUs, or ""."""
    ours = len(usable(gpus))
    if ours >= slots:
        return ""
    if len(gpus) >= slots:
        return f"detbuild may use {ours} of the {len(gpus)} on this host"
    return f"this host has only {len(gpus)}" if gpus else "no GPU was found on this host"


def shortage_error(gpus: Sequence[Gpu], slots: int) -> EngineError | None:
    """Return the error if the host can never provide `slots` GPUs."""
    why = shortage(gpus, slots)
    if not why:
        return None
    requested = f"resources.slots_per_trial requests {slots} GPU{'s' if slots > 1 else ''}"
    cpu = "set `resources.slots_per_trial: 0` to train on the CPU"
    hint = f"{cpu}; `detbuild doctor` checks for GPUs"
    if len(gpus) >= slots:
        hint = f"add GPUs to `gpus` in config.yaml of detbuild's home, or {cpu}"
    return EngineError(f"{requested}, but {why}", hint=hint)


def nowhere(_path: KeyPath) -> str:
    """Return no position: the text of the value is unknown."""
    return ""


def check_host(
    config: ExperimentConfig,
    info: EngineInfo,
    nvidia_smi: Callable[[], str],
    *,
    gpus: Collection[str] | None = None,
    place: Callable[[KeyPath], str] = nowhere,
) -> None:
    """Check GPUs and directories to mount; create the checkpoint directory.

    Args:
        config: The experiment's config.
        info: The engine.
        nvidia_smi: Output of `nvidia-smi -L`.
        gpus: Names of usable GPUs; None for all.
        place: Returns the position of a key in the config, as text.

    Raises:
        EngineError: The host has too few GPUs, or the directory cannot be created.
        ConfigError: A directory to mount is missing, or belongs to the host itself.
    """
    slots = config.resources.slots_per_trial
    error = shortage_error(discover(info, nvidia_smi(), gpus), slots) if slots else None
    if error is not None:
        raise error
    check_mounts(config, place, engine_root=info.data_root)
    storage = config.checkpoint_storage
    if isinstance(storage, SharedFs):
        with file_errors(Path(storage.directory)):
            Path(storage.directory).mkdir(parents=True, exist_ok=True)


def check_mounts(
    config: ExperimentConfig, place: Callable[[KeyPath], str] = nowhere, *, engine_root: str = ""
) -> None:
    """Raise one error for all directories that cannot be mounted; create nothing.

    Raises:
        ConfigErrors: A source is missing, or belongs to the host itself.
    """
    found = []
    for index, mount in enumerate(config.bind_mounts):
        path: KeyPath = ("bind_mounts", index, "host_path")
        if _is_missing(mount.host_path):
            found.append(
                Problem(path, f"{_short(mount.host_path)} does not exist", "create it, or mount another")
            )
        else:
            found += _reserved(path, mount.host_path, engine_root)
    if isinstance(config.checkpoint_storage, SharedFs):
        found += _reserved(
            ("checkpoint_storage", "host_path"), config.checkpoint_storage.host_path, engine_root
        )
    if found:
        raise ConfigErrors(problem.line(place(problem.path)) for problem in found)


def _is_missing(path: str) -> bool:
    """Whether the path is missing; one that this user may not see counts as present."""
    try:
        Path(path).stat()
    except OSError as error:
        return error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
    return False


def _reserved(key: KeyPath, path: str, engine_root: str) -> list[Problem]:
    """Return a problem if the path, with links resolved, must not be mounted."""
    real = os.path.realpath(path)
    found = reserved(real, engine_root=engine_root)
    if found is None:
        return []
    what, hint = found
    return [Problem(key, what if real == path else f"{what}, the target of {_short(path)}", hint)]


def _short(path: str) -> str:
    return path if len(path) <= _LONGEST else f"...{path[-_LONGEST:]}"
