"""Sections for clusters only: checked and kept, but without effect on a single host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, JsonValue

from detbuild.config.fields import Integer, ListOf, Positive
from detbuild.config.secrets import SECRET
from detbuild.config.section import Section


class Slurm(Section):
    slots_per_node: Positive | None = None
    """GPUs per node."""
    gpu_type: str | None = None
    """GPU type."""
    sbatch_args: Annotated[ListOf[str], SECRET] = ()
    """Arguments of sbatch."""


class Pbs(Section):
    slots_per_node: Positive | None = None
    """GPUs per node."""
    pbsbatch_args: Annotated[ListOf[str], SECRET] = ()
    """Arguments of qsub."""


class Webhooks(Section):
    webhook_id: ListOf[Integer] = ()
    """IDs of webhooks."""
    webhook_name: ListOf[str] = ()
    """Names of webhooks."""
    exclude: bool = False
    """Trigger no webhooks."""


class Integrations(Section):
    pachyderm: Annotated[Mapping[str, JsonValue], SECRET] = Field(default_factory=dict)
    """Provenance of the data."""
    webhooks: Webhooks | None = None
    """Webhooks to trigger."""
