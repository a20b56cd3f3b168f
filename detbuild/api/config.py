"""Configs: read, checked, traced to their sources, and previewed as a search."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from detbuild.config.yaml import dotted, read_document, read_text
from detbuild.errors import ConfigError
from detbuild.events import heartbeat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detbuild.api.connection import Connection
    from detbuild.config.experiment import ExperimentConfig as ExperimentConfig
    from detbuild.config.host import HostConfig
    from detbuild.config.parse import Traced
    from detbuild.config.sources import Layer as Layer
    from detbuild.search.preview import Preview

Given = Mapping[str, object] | str | Path


@dataclass(frozen=True, slots=True)
class CheckedConfig:
    """A valid config with defaults, and where each value comes from."""

    shown: Mapping[str, object]
    sources: Mapping[str, str]  # by the dotted path of a value
    text: str  # as YAML, with sources as comments


def layers(connection: Connection, templates: Sequence[str], *, host: bool = True) -> tuple[Layer, ...]:
    """Return what is below a config: the templates and, for containers, the defaults of the host."""
    from detbuild.config import host as host_configs
    from detbuild.config import sources

    defaults = host_configs.host_config(connection.path).layers if host else ()
    return (*sources.template_layers(connection.path, templates), *defaults)


def read_file(
    connection: Connection,
    config: Path,
    *,
    overrides: Sequence[str],
    templates: Sequence[str],
    local: bool = False,
) -> tuple[Traced, str, HostConfig]:
    """Read a config file over its templates and the defaults of the host; return it, its text and the host's.

    A local run has no defaults of the host, except its startup hook.

    Raises:
        ConfigError: One of these is invalid.
    """
    text = read_text(config, "experiment config")
    with heartbeat(connection.emit, lambda: f"reading {config}"):
        document = read_document(text, str(config))
        # These load the models of all sections, which an error of syntax is reported without.
        from detbuild.config import host, parse, sources

        of_host = _of_local_run(connection.path) if local else host.host_config(connection.path)
        below = (*sources.template_layers(connection.path, templates), *of_host.layers)
        traced = parse.trace_document(document, source=str(config), overrides=overrides, below=below)
    return traced, text, of_host


def _of_local_run(home: Path) -> HostConfig:
    """Keep only the startup hook of the host config; a local run ignores its other errors."""
    from detbuild.config.host import NO_HOST_CONFIG, host_config

    try:
        return replace(NO_HOST_CONFIG, startup_hook=host_config(home).startup_hook)
    except ConfigError:
        return NO_HOST_CONFIG


def check(
    connection: Connection,
    config: Path,
    overrides: Sequence[str],
    templates: Sequence[str],
    *,
    show_secrets: bool,
) -> CheckedConfig:
    """Check a config file; warn of what has no effect.

    Raises:
        ConfigErrors: It is not valid; all errors at once.
    """
    traced, _, host = read_file(connection, config, overrides=overrides, templates=templates)
    from detbuild.config import parse, rewrite

    for warning in (*rewrite.warnings_for(traced.config), *host.warnings()):
        connection.emit(warning)
    shown = traced.config.resolved() if show_secrets else traced.config.masked()
    sources = {dotted(value.path): value.source for value in parse.values(traced, shown)}
    return CheckedConfig(shown, sources, parse.written(parse.values(traced, shown)))


def schema() -> Mapping[str, object]:
    """Return the JSON Schema of experiment configs."""
    from detbuild.config.schema import experiment_schema

    return experiment_schema()


def left_out() -> tuple[str, ...]:
    """Say of each member of an installed package that cannot be used, why."""
    from detbuild.config.schema import plugins

    return tuple(f"`{one.name}` is left out: {one.problem}" for one in plugins() if one.error)


def preview(
    connection: Connection, config: Path, overrides: Sequence[str], templates: Sequence[str]
) -> Preview:
    """Return the trials that the search of a config plans."""
    from detbuild.search import preview as search

    traced, _, _ = read_file(connection, config, overrides=overrides, templates=templates)
    return search.preview(traced.config)


def read_config(
    given: Given | None, *, below: Sequence[Layer] = (), overrides: Sequence[str] = (), local: bool = False
) -> tuple[ExperimentConfig, str]:
    """Return a config of a file or a map, and its text.

    Args:
        given: A map, or the path of a file.
        below: What it is merged over.
        overrides: Values of `--config`, for a file.
        local: A map may lack what a run in this process does not need; its text is the complete config.
    """
    from detbuild.config import parse

    if isinstance(given, (str, Path)):
        text = read_text(Path(given), "experiment config")
        return parse.parse_config(text, source=str(given), overrides=overrides, below=below), text
    raw = dict(given or {})
    if not local:
        return parse.config_from_mapping(raw, below=below), json.dumps(raw, indent=2, default=str)
    config = parse.config_from_mapping(raw, defaults=parse.LOCAL_DEFAULTS, below=below)
    return config, json.dumps(config.resolved(), indent=2)


def local_config(raw: Mapping[str, object]) -> ExperimentConfig:
    """Return the config of a run in this process."""
    from detbuild.config import parse

    return parse.config_from_mapping(raw, defaults=parse.LOCAL_DEFAULTS)


def sampled(config: ExperimentConfig, seed: int) -> Mapping[str, object]:
    """Sample the hyperparameters of a trial."""
    from detbuild.config.hyperparameters import sample

    return sample(config.hyperparameters, seed)
