"""Reads the config of a submitted experiment back from its folder."""

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

# What a local experiment may have been submitted without; a length that is absent means something.
_ABSENT: Final[Mapping[str, object]] = {"entrypoint": None, "searcher": {"name": "single", "metric": None}}


def config_of(folder: ExperimentFolder) -> ExperimentConfig:
    """The config as it was resolved at submission, or when the experiment was continued.

    Raises:
        EngineError: The file is gone or damaged.
    """
    return _read(folder.config_file)


def config_with(
    config: ExperimentConfig, *, overrides: Sequence[str] = (), file: Path | None = None
) -> ExperimentConfig:
    """The config of a submitted experiment with the changes of a file, and over them overrides.

    Raises:
        ConfigError: They cannot be read, or what they make is no config.
    """
    return changed_config(
        config.resolved(),
        source="the experiment's config",
        overrides=overrides,
        file=file,
        defaults=_ABSENT,
    )


def search_config_of(folder: ExperimentFolder) -> ExperimentConfig:
    """The config that the search was begun with, whatever the experiment went on with later.

    Raises:
        EngineError: The file is gone or damaged.
    """
    first = folder.first_config_file
    return _read(first if folder.files.exists(first.name) else folder.config_file)


def _read(file: Path) -> ExperimentConfig:
    hint = "restore it, or move the experiment's folder away"
    try:
        raw = read_document(file, as_map, hint=hint)
    except FileNotFoundError as error:
        raise EngineError(f"cannot read {file}: it does not exist", hint=hint) from error
    try:
        return config_from_mapping(raw, source=str(file), defaults=_ABSENT)
    except ConfigError as error:
        raise EngineError(f"cannot read {file}: {error}", hint=hint) from error
