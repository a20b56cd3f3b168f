"""What a trial is given of the host."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from detbuild.config.clauses import also, text
from detbuild.config.fields import AbsolutePath, Count, Many, Whole
from detbuild.config.problems import show
from detbuild.config.section import Section, wrong

# Written out, as the JSON Schema knows no flags.
_SIZE: Final = re.compile(
    r"[ \t]*([0-9]{1,15}(?:\.[0-9]{1,6})?) ?(?:([kmgtpKMGTP])(?:[iI]?[bB]|[iI])?|[bB])?[ \t]*"
)
_FACTORS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}


def _bytes(value: object) -> object:
    """`4g`, `4 GiB` and `4gb` are the same: Docker counts in powers of 1024 whatever the unit is called."""
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value)
    if match is None:
        hint = "write bytes, or a number with k, m, g, t or p: `4g`"
        raise wrong(f"is not a valid size: {show(value)}", hint=hint)
    return int(float(match[1]) * _FACTORS[(match[2] or "").lower()])


_AS_TEXT: Final = also(text(_SIZE.pattern, "a size such as 4g"))
Bytes = Annotated[int, Whole(1), BeforeValidator(_bytes), _AS_TEXT]
Memory = Annotated[int, Whole(6 << 20), BeforeValidator(_bytes), _AS_TEXT]  # engines refuse a smaller limit
Cpus = Annotated[float, Field(ge=0.01, le=1_000_000)]

_OF_MRW: Final = "letters of `mrw`, each once"
_MODE: Final = r"(?!.*(.).*\1)[rwm]+"


def _mode(value: str) -> str:
    if not re.fullmatch(_MODE, value):
        raise wrong(f"is no mode of a device: {show(value)}", hint=f"use {_OF_MRW}")
    return value


class Device(Section):
    host_path: AbsolutePath
    """The device on the host, such as `/dev/infiniband`."""
    container_path: AbsolutePath
    """What it is called in the container."""
    mode: Annotated[str, AfterValidator(_mode), WithJsonSchema(text(_MODE, _OF_MRW))] = "mrw"
    """What may be done with it: m (mknod), r (read), w (write)."""


def _device(value: object) -> object:
    if not isinstance(value, str):
        return value
    parts = value.split(":")
    if len(parts) not in {2, 3}:
        raise wrong(f"is no device: {show(value)}", hint="write host:container or host:container:mode")
    return dict(zip(("host_path", "container_path", "mode"), parts, strict=False))


_PAIR: Final = text(rf"/[^:\0]*:/[^:\0]*(?::{_MODE})?", "host:container or host:container:mode")
ConfigDevice = Annotated[Device, BeforeValidator(_device), also(_PAIR)]


class Resources(Section):
    slots_per_trial: Count = 1
    """GPUs for each trial; 0 trains on the CPU."""
    shm_size: Bytes = 4 << 30
    """Shared memory: bytes, or text such as `4g`; units count in powers of 1024."""
    memory: Memory | None = None
    """Memory that a trial may use, `/dev/shm` included; absent: the host's less a reserve."""
    cpus: Cpus | None = None
    """CPU time that a trial may use, in cores such as 1.5; absent: no limit."""
    devices: Many[ConfigDevice] = ()
    """Devices of the host: `host:container`, `host:container:mode`, or a map."""
    max_slots: Count | None = None
    """Slots that all trials of the experiment may hold at once; absent: no limit."""
    weight: Annotated[float, Field(ge=0)] = 1.0
    """Its share of a host that several experiments want: twice the weight, twice the slots."""
    priority: Annotated[int, Whole(1, 99)] | None = None
    """From 1 to 99; the lower number goes first."""
    resource_pool: str = ""
    """Of a cluster; without meaning on one host."""
    is_single_node: bool | None = None
    """Of a cluster; without meaning on one host, where a trial never spans several."""
    native_parallel: bool | None = None
    """Of old versions; without meaning here."""
    agent_label: str | None = None
    """Of old versions; without meaning here."""
