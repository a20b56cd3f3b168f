"""What code written for Determined catches or raises by these names."""

from __future__ import annotations

from determined._errors import CheckpointError as CheckpointStateException
from determined._errors import InvalidTrialError as InvalidExperimentException

__all__ = ["CheckpointStateException", "InvalidExperimentException"]
