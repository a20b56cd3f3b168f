"""Registers a checkpoint as the next version of a model."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from detbuild.checkpoint.find import find_checkpoint
from detbuild.errors import ConfigError
from detbuild.store.registry import Version, read_model, register

if TYPE_CHECKING:
    from detbuild.store.home import Home


def register_checkpoint(home: Home, model: str, uuid: str, *, name: str = "", comment: str = "") -> Version:
    """Add a checkpoint to a model, which protects it from garbage collection.

    Raises:
        ConfigError: The model or checkpoint does not exist, or its files were deleted.
    """
    read_model(home, model)
    found = find_checkpoint(home, uuid)
    if found.state != "COMPLETED":
        raise ConfigError(
            f"checkpoint {found.checkpoint.uuid} is {found.state}: there is nothing to register",
            hint=f"see `detbuild checkpoint list {found.experiment_id}`",
        )
    version = Version(
        version=0, checkpoint=found.checkpoint.uuid, created=time.time(), name=name, comment=comment
    )
    return register(home, model, version)
