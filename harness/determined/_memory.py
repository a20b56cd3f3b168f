"""Free memory of the host and of this process's container."""

from __future__ import annotations

from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_LIMITS = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)


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
