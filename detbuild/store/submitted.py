"""Reads the config of a submitted experiment from its folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from detbuild.config.parse import changed_config, config_from_mapping
from detbuild.errors import ConfigError, EngineError
from detbuild.store.reading import as_map, read_document

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.store.folder import ExperimentFolder

# Defaults of fields that a local experiment may lack; `max_length` has none, since its absence has a meaning.
_ABSENT: Final[Mapping[str, object]] = {"entrypoint": None, "searcher": {"name": "single", "metric": None}}


def config_of(folder: ExperimentFolder) -> ExperimentConfig:
    """Return the config as resolved at submission, or when the experiment was last continued.

    Raises:
        EngineError: The file is missing or damaged.
    """
    return _read(folder.config_file)


def config_with(
    config: ExperimentConfig, *, overrides: Sequence[str] = (), file: Path | None = None
) -> ExperimentConfig:
    """Return the config of a submitted experiment with the changes of a file, then of overrides.

    Raises:
        ConfigError: The changes cannot be read, or the result is not a valid config.
    """
    return changed_config(
        config.resolved(),
        source="the experiment's config",
        overrides=overrides,
        file=file,
        defaults=_ABSENT,
    )


def search_config_of(folder: ExperimentFolder) -> ExperimentConfig:
    """Return the config that the search started with, even if the experiment was continued with another.

    Raises:
        EngineError: The file is missing or damaged.
    """
    first = folder.first_config_file
    return _read(first if folder.files.exists(first.name) else folder.config_file)


def _read(file: Path) -> ExperimentConfig:
    hint = "restore it, or move the experiment's folder aside"
    try:
        raw = read_document(file, as_map, hint=hint)
    except FileNotFoundError as error:
        raise EngineError(f"cannot read {file}: it does not exist", hint=hint) from error
    try:
        return config_from_mapping(raw, source=str(file), defaults=_ABSENT)
    except ConfigError as error:
        raise EngineError(f"cannot read {file}: {error}", hint=hint) from error
