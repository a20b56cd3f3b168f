"""Memory and CPU limits of a trial, and warnings for what a config gives it beyond its container.

A limit comes from the config, or by default from the host. The warnings name what may harm the host.
"""

from __future__ import annotations

import os
import posixpath
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Final

from detbuild.codec import as_map, from_json
from detbuild.errors import EngineError
from detbuild.events import Warned
from detbuild.store.experiment_dir import WORK_DIR, in_container
from detbuild.store.files import read_document

if TYPE_CHECKING:
    from collections.abc import Iterator

    from detbuild.config.environment import BindMount
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
_ALL: Final = "ALL"
# What each allows a process in a container.
_DANGEROUS: Final = {
    _ALL: "all of root's rights on the host",
    "AUDIT_CONTROL": "control of the host's audit log",
    "BPF": "programs in the host's kernel",
    "CHECKPOINT_RESTORE": "control of other processes",
    "DAC_OVERRIDE": "files that its user may not touch, in every mount",
    "DAC_READ_SEARCH": "reading any file of the host",
    "FOWNER": "files of other users, in every mount",
    "LINUX_IMMUTABLE": "protected files, in every mount",
    "MAC_ADMIN": "the host's security policy",
    "MAC_OVERRIDE": "the host's security policy",
    "MKNOD": "device files of the host's disks",
    "NET_ADMIN": "the container's network, and the host's with network_mode host",
    "NET_RAW": "forged packets on the container's network",
    "PERFMON": "the host's performance counters, which leak what other processes do",
    "SETFCAP": "programs with rights of their own, in every mount",
    "SETPCAP": "more capabilities",
    "SYSLOG": "the host's kernel log and addresses",
    "SYS_ADMIN": "mounts, and most of root's rights on the host",
    "SYS_BOOT": "restarting the host",
    "SYS_MODULE": "modules in the host's kernel",
    "SYS_PACCT": "the host's process accounting",
    "SYS_PTRACE": "reading and changing other processes of the container",
    "SYS_RAWIO": "the host's memory and devices",
    "SYS_RESOURCE": "use beyond the limits of disks and processes",
    "SYS_TIME": "the host's clock",
}
_HARMLESS: Final = frozenset(
    {
        "AUDIT_READ",
        "AUDIT_WRITE",
        "BLOCK_SUSPEND",
        "CHOWN",
        "FSETID",
        "IPC_LOCK",
        "IPC_OWNER",
        "KILL",
        "LEASE",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "SETGID",
        "SETUID",
        "SYS_CHROOT",
        "SYS_NICE",
        "SYS_TTY_CONFIG",
        "WAKE_ALARM",
    }
)
_PROGRAMS: Final = ("/bin", "/lib", "/lib32", "/lib64", "/opt", "/sbin", "/usr")
_HOMES: Final = ("/home", "/root")
_KEYS: Final = frozenset({".aws", ".azure", ".config", ".docker", ".gnupg", ".kube", ".netrc", ".ssh"})
_RAW_DEVICE: Final = re.compile(
    r"/dev(/(mem|kmem|port|kmsg|(mapper|disk)(/.*)?|(sd|hd|vd|xvd|nvme|dm-|md|loop|mmcblk|sr|nbd)[\w-]*)?)?"
)


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
    return from_json(
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


def grant_warnings(config: ExperimentConfig, home: Path, user_home: Path) -> Iterator[Warned]:
    """Yield one warning for each grant.

    Args:
        config: The experiment's config, with the host's defaults.
        home: The detbuild home.
        user_home: The submitting user's home directory.
    """
    yield from _capabilities(config)
    for index, mount in enumerate(config.bind_mounts):
        yield from _mounted(f"bind_mounts[{index}].host_path", mount, home, user_home)
    for index, device in enumerate(config.resources.devices):
        if _RAW_DEVICE.fullmatch(posixpath.normpath(device.host_path)):
            message = (
                f"resources.devices[{index}]: {device.host_path} gives the trial a raw device of the host"
            )
            yield Warned(message, "remove it unless the trial is trusted with the host")


def capability(name: str) -> str:
    """Return the name as the engine reads it: in any case, with or without `CAP_`."""
    return name.upper().removeprefix("CAP_")


def _capabilities(config: ExperimentConfig) -> Iterator[Warned]:
    known = (*_DANGEROUS, *_HARMLESS)
    for field, names in (
        ("add_capabilities", config.environment.add_capabilities),
        ("drop_capabilities", config.environment.drop_capabilities),
    ):
        for name in names:
            short = capability(name)
            if short not in known:
                near = get_close_matches(short, known, n=1)
                hint = f"write `{near[0]}`, or remove it" if near else "remove it, or see capabilities(7)"
                yield Warned(f"environment.{field}: {name} is not a known capability", hint)
            elif field == "add_capabilities" and short in _DANGEROUS:
                message = f"environment.add_capabilities: {name} gives the trial {_DANGEROUS[short]}"
                yield Warned(message, "remove it unless the trial is trusted with the host")


def _mounted(where: str, mount: BindMount, home: Path, user_home: Path) -> Iterator[Warned]:
    path = posixpath.normpath(os.path.realpath(mount.host_path))
    given = _given_away(path, home, user_home, read_only=mount.read_only)
    if given:
        hint = "mount a directory of your data" + ("" if mount.read_only else ", or set read_only: true")
        yield Warned(f"{where}: {mount.host_path} gives the trial {given}", hint)
    if mount.propagation in {"shared", "rshared"}:
        message = f"{where}: propagation {mount.propagation} shows mounts of the trial on the host"
        yield Warned(message, "leave out propagation")


def _given_away(path: str, home: Path, user_home: Path, *, read_only: bool) -> str:
    """Return what a mount of a real path grants; "" for a data directory."""
    from detbuild.config.environment import SOCKET_RISK, SOCKETS

    if any(Path(path, name).is_socket() for name in SOCKETS):
        return SOCKET_RISK
    access = "reading" if read_only else "reading and changing"
    if path in {*_HOMES, str(user_home.resolve())} or posixpath.dirname(path) == "/home":
        return f"a home directory, with keys and passwords, for {access}"
    if _KEYS.intersection(path.split("/")):
        return f"keys and passwords, for {access}"
    if not read_only and (path in _PROGRAMS or path.startswith("/usr/")):
        return "programs of the host to change"
    experiments = os.path.realpath(home)
    if path == experiments or experiments.startswith(f"{path}/") or path.startswith(f"{experiments}/"):
        return f"experiments of detbuild, for {access}"
    return ""
