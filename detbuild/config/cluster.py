"""Sections that only a cluster can act on: checked, kept, and said to have no effect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, JsonValue

from detbuild.config.fields import Integer, Many, Positive
from detbuild.config.secrets import SECRET
from detbuild.config.section import Section


class Slurm(Section):
    slots_per_node: Positive | None = None
    """GPUs of a node."""
    gpu_type: str | None = None
    """The kind of GPU."""
    sbatch_args: Annotated[Many[str], SECRET] = ()
    """Arguments of sbatch."""


class Pbs(Section):
    slots_per_node: Positive | None = None
    """GPUs of a node."""
    pbsbatch_args: Annotated[Many[str], SECRET] = ()
    """Arguments of qsub."""


class Webhooks(Section):
    webhook_id: Many[Integer] = ()
    """Webhooks by number."""
    webhook_name: Many[str] = ()
    """Webhooks by name."""
    exclude: bool = False
    """Trigger none at all."""


class Integrations(Section):
    pachyderm: Annotated[Mapping[str, JsonValue], SECRET] = Field(default_factory=dict)
    """Where data came from."""
    webhooks: Webhooks | None = None
    """Which webhooks of the cluster are triggered."""
