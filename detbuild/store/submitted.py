"""Reads the config of a submitted experiment back from its folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from detbuild.config.parse import config_from_mapping
from detbuild.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.store.folder import ExperimentFolder

# What a local experiment may have been submitted without; a length that is absent means something.
_ABSENT: Final[Mapping[str, object]] = {"entrypoint": None, "searcher": {"name": "single", "metric": None}}


def config_of(folder: ExperimentFolder) -> ExperimentConfig:
    """The config as it was resolved at submission, or when the experiment was continued.

    Raises:
        EngineError: The file is gone or damaged.
    """
    return _read(folder.config_file)


def search_config_of(folder: ExperimentFolder) -> ExperimentConfig:
    """The config that the search was begun with, whatever the experiment went on with later.

    Raises:
        EngineError: The file is gone or damaged.
    """
    first = folder.first_config_file
    return _read(first if first.exists() else folder.config_file)


def _read(file: Path) -> ExperimentConfig:
    try:
        raw = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise EngineError(f"cannot read {file}: {error}") from error
    return config_from_mapping(raw, source=str(file), defaults=_ABSENT)
