"""What a trial is given of the host."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from detbuild.config.fields import AbsolutePath, Count, Many
from detbuild.config.problems import show
from detbuild.config.section import Section, wrong

_SIZE: Final = re.compile(r"(\d{1,15}(?:\.\d{1,6})?) ?([kmgtp]?)i?b?", re.IGNORECASE)
_FACTORS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}


def _bytes(value: object) -> object:
    """`4g`, `4 GiB` and `4gb` are the same: Docker counts in powers of 1024 whatever the unit is called."""
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise wrong(f"is no size: {show(value)}", mend="write bytes, or a number with k, m, g, t: `4g`")
    return int(float(match[1]) * _FACTORS[match[2].lower()])


Bytes = Annotated[int, Field(ge=1, le=(1 << 63) - 1), BeforeValidator(_bytes)]


def _mode(value: str) -> str:
    if not value or set(value) - set("rwm") or len(set(value)) < len(value):
        raise wrong(f"is no mode of a device: {show(value)}", mend="use letters of `mrw`, each once")
    return value


class Device(Section):
    host_path: AbsolutePath
    container_path: AbsolutePath
    mode: Annotated[str, AfterValidator(_mode)] = "mrw"


def _device(value: object) -> object:
    if not isinstance(value, str):
        return value
    parts = value.split(":")
    if len(parts) not in {2, 3}:
        raise wrong(f"is no device: {show(value)}", mend="write host:container or host:container:mode")
    return dict(zip(("host_path", "container_path", "mode"), parts, strict=False))


ConfigDevice = Annotated[Device, BeforeValidator(_device)]


class Resources(Section):
    slots_per_trial: Count = 1  # GPUs; 0 trains on the CPU
    shm_size: Bytes = 4 << 30
    devices: Many[ConfigDevice] = ()
    max_slots: Count | None = None
    weight: Annotated[float, Field(ge=0)] = 1.0
    priority: Annotated[int, Field(ge=1, le=99)] | None = None
    resource_pool: str = ""
    is_single_node: bool | None = None
    native_parallel: bool | None = None
    agent_label: str | None = None

    @model_validator(mode="after")
    def _room_for_one_trial(self) -> Resources:
        if self.max_slots is not None and self.max_slots < self.slots_per_trial:
            what = f"must be at least slots_per_trial, {self.slots_per_trial}, not {self.max_slots}"
            raise wrong(what, at=("max_slots",), later=True)
        return self
