"""Resources of the host for a trial."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from detbuild.config.clauses import matching_text, or_schema
from detbuild.config.fields import AbsolutePath, Count, IntRange, ListOf
from detbuild.config.problems import show
from detbuild.config.section import Section, wrong

# No flags, because patterns of JSON Schema have none.
_SIZE: Final = re.compile(
    r"[ \t]*([0-9]{1,15}(?:\.[0-9]{1,6})?) ?(?:([kmgtpKMGTP])(?:[iI]?[bB]|[iI])?|[bB])?[ \t]*"
)
_FACTORS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}


def _bytes(value: object) -> object:
    """Parse `4g`, `4 GiB` or `4gb`, all in powers of 1024 as in Docker."""
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value)
    if match is None:
        hint = "write bytes, or a number with k, m, g, t or p: `4g`"
        raise wrong(f"is not a valid size: {show(value)}", hint=hint)
    return int(float(match[1]) * _FACTORS[(match[2] or "").lower()])


_AS_TEXT: Final = or_schema(matching_text(_SIZE.pattern, "a size, e.g. 4g"))
Bytes = Annotated[int, IntRange(1), BeforeValidator(_bytes), _AS_TEXT]
Memory = Annotated[
    int, IntRange(6 << 20), BeforeValidator(_bytes), _AS_TEXT
]  # engines reject a smaller limit
Cpus = Annotated[float, Field(ge=0.01, le=1_000_000)]

_OF_MRW: Final = "letters of `mrw`, each once"
_MODE: Final = r"(?!.*(.).*\1)[rwm]+"


def _mode(value: str) -> str:
    if not re.fullmatch(_MODE, value):
        raise wrong(f"is not a valid device mode: {show(value)}", hint=f"use {_OF_MRW}")
    return value


class Device(Section):
    host_path: AbsolutePath
    """Device on the host, e.g. `/dev/infiniband`."""
    container_path: AbsolutePath
    """Path in the container."""
    mode: Annotated[str, AfterValidator(_mode), WithJsonSchema(matching_text(_MODE, _OF_MRW))] = "mrw"
    """Allowed access: m (mknod), r (read), w (write)."""


def _device(value: object) -> object:
    if not isinstance(value, str):
        return value
    parts = value.split(":")
    if len(parts) not in {2, 3}:
        raise wrong(
            f"is not a valid device: {show(value)}", hint="write host:container or host:container:mode"
        )
    return dict(zip(("host_path", "container_path", "mode"), parts, strict=False))


_PAIR: Final = matching_text(rf"/[^:\0]*:/[^:\0]*(?::{_MODE})?", "host:container or host:container:mode")
ConfigDevice = Annotated[Device, BeforeValidator(_device), or_schema(_PAIR)]


class Resources(Section):
    slots_per_trial: Count = 1
    """GPUs per trial; 0 trains on the CPU."""
    shm_size: Bytes = 4 << 30
    """Size of `/dev/shm`: bytes, or text such as `4g`, in powers of 1024."""
    memory: Memory | None = None
    """Memory limit of a trial, `/dev/shm` included; absent: the host's memory less a reserve."""
    cpus: Cpus | None = None
    """CPU limit of a trial in cores, e.g. 1.5; absent: no limit."""
    devices: ListOf[ConfigDevice] = ()
    """Host devices: `host:container`, `host:container:mode`, or a map."""
    max_slots: Count | None = None
    """Limit on slots in use by all trials of the experiment; absent: no limit."""
    weight: Annotated[float, Field(ge=0)] = 1.0
    """Share of a host that several experiments use: twice the weight, twice the slots."""
    priority: Annotated[int, IntRange(1, 99)] | None = None
    """Priority from 1 to 99; lower numbers go first."""
    resource_pool: str = ""
    """Resource pool of a cluster; no effect on a single host."""
    is_single_node: bool | None = None
    """Whether a trial must fit one node; no effect on a single host."""
    native_parallel: bool | None = None
    """Field of old versions; no effect."""
    agent_label: str | None = None
    """Field of old versions; no effect."""
