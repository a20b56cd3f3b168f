"""Which GPUs a run gets: found on the host, kept apart between all experiments of all users of one engine."""

from __future__ import annotations

import fcntl
import os
import re
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from detbuild.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from detbuild.engine.protocol import ContainerState, EngineInfo

LABEL = "detbuild.gpus"  # comma-separated ids; a container that carries it and has not ended holds them


@dataclass(frozen=True, slots=True)
class Gpu:
    id: str
    driver: Literal["nvidia", "cdi"]


def discover(info: EngineInfo, nvidia_smi: str) -> tuple[Gpu, ...]:
    """The GPUs of the host: the engine's CDI devices where it has any, else what `nvidia-smi -L` lists.

    A GPU that is divided (MIG) counts as its parts.
    """
    cdi = _cdi(info.cdi_devices)
    return tuple(Gpu(name, "cdi") for name in cdi) or tuple(
        Gpu(uuid, "nvidia") for uuid in _listed(nvidia_smi)
    )


def _cdi(names: Iterable[str]) -> list[str]:
    """CDI gives each device several names (index, UUID, "all"): take each device once."""
    gpus = [name for name in names if name.partition("=")[0].endswith("/gpu")]
    numbered = [name for name in gpus if re.fullmatch(r"\d+(:\d+)?", name.partition("=")[2])]
    named = [name for name in gpus if not name.endswith("=all") and name not in numbered]
    return sorted(numbered, key=_by_number) or sorted(named)


def _by_number(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.partition("=")[2].split(":"))


def _listed(nvidia_smi: str) -> list[str]:
    """UUIDs from lines such as `GPU 0: NVIDIA H100 (UUID: GPU-...)`, each followed by its MIG parts."""
    found: list[str] = []
    for line in nvidia_smi.splitlines():
        match = re.match(r"\s*(GPU|MIG)\b.*\(UUID: ((?:GPU|MIG)-[^)]+)\)", line)
        if match is None:
            continue
        kind, uuid = match.groups()
        if kind == "MIG" and found and found[-1].startswith("GPU-"):
            found.pop()
        found.append(uuid)
    return found


def held(containers: Iterable[ContainerState]) -> frozenset[str]:
    """The GPUs that containers hold, running or about to."""
    labels = (container.labels.get(LABEL, "") for container in containers if not container.ended)
    return frozenset(gpu for label in labels for gpu in label.split(",") if gpu)


def choose(gpus: Sequence[Gpu], taken: frozenset[str], slots: int) -> tuple[Gpu, ...] | None:
    """The first free ones; None when too few are free."""
    there = [gpu for gpu in gpus if gpu.id not in taken]
    return tuple(there[:slots]) if len(there) >= slots and not _strange(gpus, taken) else None


def free(gpus: Sequence[Gpu], taken: frozenset[str]) -> str:
    """How many are free, for people."""
    strange = _strange(gpus, taken)
    if strange:
        return f"a container holds {', '.join(strange)}, which has another name by now"
    return f"{sum(gpu.id not in taken for gpu in gpus)} of {len(gpus)} on this host are free"


def _strange(gpus: Sequence[Gpu], taken: frozenset[str]) -> list[str]:
    """Held GPUs of unknown names.

    Names change when the host gets or loses a CDI specification, so any of the known ones may be meant.
    """
    return sorted(taken - {gpu.id for gpu in gpus})


def lacking(gpus: Sequence[Gpu], slots: int) -> EngineError | None:
    """The error to raise when the host can never give `slots` GPUs."""
    if len(gpus) >= slots:
        return None
    found = "no GPU was found" if not gpus else f"only {len(gpus)} of them"
    return EngineError(
        f"resources.slots_per_trial asks for {slots} GPU{'s' if slots > 1 else ''}, and {found} on this host",
        mend="set `resources.slots_per_trial: 0` to train on the CPU; `detbuild doctor` looks for GPUs",
    )


def lock_file() -> Path:
    """One file for the host, whoever the user is and whatever TMPDIR says."""
    directory = Path("/run/lock")
    return (directory if directory.is_dir() else Path("/tmp")) / "detbuild-gpus.lock"  # noqa: S108  (opened without following or creating what others own)


@contextmanager
def exclusive(file: Path, *, timeout: float = 10.0) -> Iterator[None]:
    """Hold the host's lock, so that choosing GPUs and creating their container is one step.

    Raises:
        EngineError: another process held it for `timeout` seconds.
    """
    descriptor = _open(file)
    try:
        deadline = time.monotonic() + timeout
        while not _locked(descriptor):
            if time.monotonic() > deadline:
                raise EngineError(f"another process has held {file} for {timeout:.0f} s")
            time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def _open(file: Path) -> int:
    """Open it for locking only; it is made once and shared by all users.

    The kernel refuses O_CREAT on somebody else's file in a world-writable directory (fs.protected_regular),
    so it is tried without first.
    """
    try:
        return os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise EngineError(f"cannot open {file}: {error.strerror}") from error
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        os.fchmod(descriptor, 0o666)
    except OSError as error:
        raise EngineError(f"cannot make {file}: {error.strerror}") from error
    return descriptor


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
