"""Memory and CPU limits of a trial: from its config, or by default from the host."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from detbuild.errors import EngineError
from detbuild.events import Warned
from detbuild.store.experiment_dir import WORK_DIR, in_container
from detbuild.store.files import as_map, read_document, typed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.engine.protocol import EngineInfo
    from detbuild.store.experiment_dir import ExperimentFolder

_LEAST_RESERVE: Final = 1 << 30  # bytes
_MOST_RESERVE: Final = 8 << 30
_SHARE: Final = 16  # a sixteenth of the host's memory is reserved
_MOST_SHARE: Final = 4  # a quarter on a small host
_SCRATCH: Final = (WORK_DIR, "/tmp", "/var/tmp")  # noqa: S108  (of a container)
OF_CONFIG: Final = "resources.memory"
OF_HOST: Final = "the host's memory less a reserve"
_UNITS: Final = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


@dataclass(frozen=True, slots=True)
class RequestedLimits:
    """The limits in a config."""

    memory: int | None = None
    cpus: float | None = None
    read_only_root: bool = False


def requested_limits(folder: ExperimentFolder) -> RequestedLimits | None:
    """Return the limits in an experiment's stored config; None if it cannot be read.

    It is read as JSON, as importing the config models would take longer than printing a page.
    """
    try:
        return read_document(folder.config_file, _asked)
    except (FileNotFoundError, EngineError):
        return None


def _asked(raw: object) -> RequestedLimits:
    config = as_map(raw)
    resources, environment = as_map(config.get("resources")), as_map(config.get("environment"))
    only = bool(environment.get("read_only_root"))
    return typed(
        RequestedLimits, {key: resources.get(key) for key in ("memory", "cpus")} | {"read_only_root": only}
    )


def reserve(memory: int) -> int:
    """Return the memory reserved for host, engine and controllers: a sixteenth, from 1 GiB to 8 GiB.

    On a host with less than 4 GiB it is a quarter.
    """
    return min(max(memory // _SHARE, _LEAST_RESERVE), _MOST_RESERVE, memory // _MOST_SHARE)


def memory_limit(asked: int | None, host_memory: int) -> int:
    """Return the memory limit of a trial in bytes; 0 for none, if the host's memory is unknown."""
    return asked or host_memory - reserve(host_memory)


def memory_source(asked: int | None, host_memory: int, limit: int) -> str:
    """Return where the limit of a container comes from."""
    if limit != memory_limit(asked, host_memory):
        return "set on the container"
    return OF_CONFIG if asked else OF_HOST


def cpu_limit(asked: float | None, host_cpus: int) -> float:
    """Return the cores of a trial; 0 for no limit. Engines reject more than the host has."""
    return 0.0 if asked is None or asked >= host_cpus > 0 else asked


def scratch(config: ExperimentConfig) -> tuple[str, ...]:
    """Return writable directories of a read-only root, except mount points."""
    if not config.environment.read_only_root:
        return ()
    mounted = {posixpath.normpath(in_container(mount.container_path)) for mount in config.bind_mounts}
    return tuple(path for path in _SCRATCH if path not in mounted)


def memory_limit_text(asked: int | None, host_memory: int = 0) -> str:
    """Return the memory limit and its source, as text.

    Args:
        asked: `resources.memory`.
        host_memory: Bytes of the engine's host; 0 if unknown.
    """
    if asked:
        return f"{binary(asked)} ({OF_CONFIG})"
    limit = f"{binary(memory_limit(None, host_memory))}, " if host_memory else ""
    return f"{limit}{OF_HOST} (no {OF_CONFIG})"


def cpu_limit_text(asked: float | None, host_cpus: int = 0) -> str:
    """Return the CPU limit and its source, as text."""
    if asked is None:
        return "no limit (no resources.cpus)"
    limit = cpu_limit(asked, host_cpus)
    return f"{limit:g} (resources.cpus)" if limit else f"all {host_cpus} of the host's (resources.cpus)"


def limit_warnings(config: ExperimentConfig, info: EngineInfo) -> Iterator[Warned]:
    """Yield warnings for limits above what the host has."""
    memory, cpus = config.resources.memory, config.resources.cpus
    if memory and 0 < info.memory < memory:
        message = f"resources.memory is {binary(memory)}, but the engine's host has {binary(info.memory)}"
        yield Warned(message, "lower it: the kernel may kill any trial when the host runs out of memory")
    if cpus and 0 < info.cpus < cpus:
        cores = f"{info.cpus} core{'s' if info.cpus > 1 else ''}"
        message = f"resources.cpus is {cpus:g}, but the engine's host has {cores}: trials use all of them"
        yield Warned(message, "lower it, or leave it out")


def local_warnings(config: ExperimentConfig) -> Iterator[Warned]:
    """Yield warnings for limits that a run without a container ignores."""
    found = [
        name
        for name, value in (
            ("resources.memory", config.resources.memory),
            ("resources.cpus", config.resources.cpus),
            ("environment.read_only_root", config.environment.read_only_root),
        )
        if value
    ]
    if found:
        message = f"not applied to a local run, which has no container: {', '.join(found)}"
        yield Warned(message, "remove --local to apply them")


def binary(count: int) -> str:
    """Format bytes in binary units: `1.5 GiB`."""
    for factor, unit in _UNITS:
        if count >= factor:
            return f"{count / factor:.1f}".removesuffix(".0") + f" {unit}"
    return f"{count} B"
