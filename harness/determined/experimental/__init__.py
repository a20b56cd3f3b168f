"""`create`: submit a trial class from Python, or run it locally. `client`: access experiments."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from determined._contract.errors import RemovedError
from determined.experimental._create import create, create_trial_instance

if TYPE_CHECKING:
    from determined.experimental import client
    from determined.experimental.client import (
        Checkpoint,
        Determined,
        Experiment,
        ExperimentReference,
        Model,
        ModelVersion,
        Trial,
        TrialReference,
    )

__all__ = [
    "Checkpoint",
    "Determined",
    "Experiment",
    "ExperimentReference",
    "Model",
    "ModelVersion",
    "Trial",
    "TrialReference",
    "client",
    "create",
    "create_trial_instance",
]


def __getattr__(name: str) -> object:
    """Import the client lazily: most scripts need only `create`."""
    if name == "Mode":
        raise RemovedError(
            "determined.experimental.Mode was removed from Determined in 0.12.5",
            hint="call create(..., local=True, test=True), or leave them out to submit",
        )
    if name not in __all__:
        raise AttributeError(f"module 'determined.experimental' has no attribute {name!r}")
    module = importlib.import_module("determined.experimental.client")
    return module if name == "client" else getattr(module, name)
