"""Memory of the host and of this process's container: how much is free, and how often it ran out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_LIMITS = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)
_MEMBERSHIP = Path("/proc/self/cgroup")


def available(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int:
    """Return the free memory in bytes; 0 if unknown."""
    host = _host(meminfo)
    return min([host, *(limit - used for limit, used in _containers(cgroup))])


def _host(meminfo: Path) -> int:
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), 0)


def _containers(cgroup: Path) -> list[tuple[int, int]]:
    """Return limit and use by cgroups version 2 or 1; a limit of `max` means none."""
    found = []
    for limit, used in _LIMITS:
        try:
            texts = [(cgroup / name).read_text(encoding="ascii").strip() for name in (limit, used)]
        except OSError:
            continue
        if all(text.isdigit() for text in texts):
            found.append((int(texts[0]), int(texts[1])))
    return found


def oom_kills(cgroups: Path = _CGROUP, membership: Path = _MEMBERSHIP) -> int:
    """Read the kernel's counter of this cgroup, version 2 or 1; return 0 if there is none."""
    for file in _counters(cgroups, membership):
        try:
            text = file.read_text(encoding="ascii")
        except OSError:
            continue
        fields = dict(line.split(maxsplit=1) for line in text.splitlines() if " " in line)
        if "oom_kill" in fields:
            return int(fields["oom_kill"])
    return 0


def _counters(cgroups: Path, membership: Path) -> Iterator[Path]:
    """Yield possible files: in a container its own cgroup is often mounted as the root."""
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            yield cgroups / path.lstrip("/") / "memory.events"
            yield cgroups / "memory.events"
        elif "memory" in controllers.split(","):
            yield cgroups / "memory" / path.lstrip("/") / "memory.oom_control"
            yield cgroups / "memory" / "memory.oom_control"
