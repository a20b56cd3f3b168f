"""Warnings at submission for what a config gives a trial beyond its container, as it may harm the host."""

from __future__ import annotations

import os
import posixpath
import re
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Final

from detbuild.config.environment import SOCKETS
from detbuild.events import Warned

if TYPE_CHECKING:
    from collections.abc import Iterator

    from detbuild.config.environment import BindMount
    from detbuild.config.experiment import ExperimentConfig

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
    if any(Path(path, name).is_socket() for name in SOCKETS):
        return "an engine's socket, which means root on the host"
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
