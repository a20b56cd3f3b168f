"""Reads the config of a submitted experiment back from its folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from detbuild.config.parse import LOCAL_DEFAULTS, config_from_mapping
from detbuild.errors import EngineError

if TYPE_CHECKING:
    from detbuild.config.experiment import ExperimentConfig
    from detbuild.store.folder import ExperimentFolder


def config_of(folder: ExperimentFolder) -> ExperimentConfig:
    """The config as it was resolved at submission.

    Raises:
        EngineError: The file is gone or damaged.
    """
    try:
        raw = json.loads(folder.config_file.read_bytes())
    except (OSError, ValueError) as error:
        raise EngineError(f"cannot read {folder.config_file}: {error}") from error
    return config_from_mapping(raw, source=str(folder.config_file), defaults=LOCAL_DEFAULTS)
