"""Sections that only a cluster can act on: checked, kept, and said to have no effect."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, JsonValue

from detbuild.config.fields import Integer, Many, Positive
from detbuild.config.section import Section


class Slurm(Section):
    slots_per_node: Positive | None = None
    gpu_type: str | None = None
    sbatch_args: Many[str] = ()


class Pbs(Section):
    slots_per_node: Positive | None = None
    pbsbatch_args: Many[str] = ()


class Webhooks(Section):
    webhook_id: Many[Integer] = ()
    webhook_name: Many[str] = ()
    exclude: bool = False


class Integrations(Section):
    pachyderm: Mapping[str, JsonValue] = Field(default_factory=dict)
    webhooks: Webhooks | None = None
