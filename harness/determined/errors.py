"""Determined's names of errors that user code catches or raises."""

from __future__ import annotations

from determined._contract.errors import CheckpointError as CheckpointStateException
from determined._contract.errors import InvalidTrialError as InvalidExperimentException

__all__ = ["CheckpointStateException", "InvalidExperimentException"]
