"""Parses YAML text or a Python mapping into an ExperimentConfig; no other module handles untyped data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from detbuild.config.experiment import ExperimentConfig
from detbuild.config.explain import explain, unknown_nulls
from detbuild.config.layers import (
    Layer,
    located_errors,
    mapping_layer,
    merged,
    read_text,
    text_layer,
    translated,
    without_nulls,
)
from detbuild.config.overrides import apply, parse_override
from detbuild.config.parts import Origin, Part
from detbuild.config.rules import broken_rules
from detbuild.config.values import plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from detbuild.config.problems import KeyPath, Problem

# Optional with `create(local=True)`: the caller passes the class, and no trials are compared.
LOCAL_DEFAULTS: Final[Mapping[str, object]] = {
    "entrypoint": None,
    "searcher": {"name": "single", "metric": None, "max_length": {"batches": 100}},
}


@dataclass(frozen=True, slots=True)
class Traced:
    """A config with the merged values it was made of and the layers they came from."""

    config: ExperimentConfig
    parts: Part
    layers: tuple[Layer, ...]

    def place(self, path: KeyPath) -> str:
        """Return the source of the value at a path: `file:line:column`, or another name."""
        origin = self.parts.trace(path)
        return self.layers[origin.layer].place(origin.path)[1]


def load_config(path: Path, overrides: Sequence[str] = (), below: Sequence[Layer] = ()) -> ExperimentConfig:
    """Read an experiment config file.

    Args:
        path: the file.
        overrides: `--config` values, applied in order.
        below: the lower layers, highest first: templates, then the host's defaults.

    Raises:
        ConfigError: the file cannot be read, or its config is invalid.
    """
    return trace_config(path, overrides, below).config


def trace_config(path: Path, overrides: Sequence[str] = (), below: Sequence[Layer] = ()) -> Traced:
    """Read as `load_config`, and keep the source of each value."""
    layer = text_layer(read_text(path, "experiment config"), str(path))
    return _traced((_overridden(layer, overrides), *below), {})


def parse_config(
    text: str, *, source: str = "<config>", overrides: Sequence[str] = (), below: Sequence[Layer] = ()
) -> ExperimentConfig:
    """Parse YAML 1.2, apply `--config` overrides, and merge the result over the layers below.

    Raises:
        ConfigErrors: every problem of the config, each with `source:line:column`.
    """
    return trace_text(text, source=source, overrides=overrides, below=below).config


def trace_text(
    text: str, *, source: str, overrides: Sequence[str] = (), below: Sequence[Layer] = ()
) -> Traced:
    """Parse as `parse_config`, and keep the source of each value."""
    return _traced((_overridden(text_layer(text, source), overrides), *below), {})


def config_from_mapping(
    mapping: Mapping[str, object],
    *,
    source: str = "config",
    overrides: Sequence[str] = (),
    defaults: Mapping[str, object] | None = None,
    below: Sequence[Layer] = (),
) -> ExperimentConfig:
    """Make a config from a Python mapping; `defaults` (e.g. LOCAL_DEFAULTS) rank lowest.

    Raises:
        ConfigErrors: every problem of the config.
    """
    layer = _overridden(mapping_layer(mapping, source, of_experiment=True), overrides)
    return _traced((layer, *below), defaults or {}).config


def changed_config(
    config: Mapping[str, object],
    *,
    source: str,
    overrides: Sequence[str] = (),
    file: Path | None = None,
    defaults: Mapping[str, object] | None = None,
) -> ExperimentConfig:
    """Change a complete config by a file, which may be partial, and then by overrides.

    Raises:
        ConfigError: the file cannot be read.
        ConfigErrors: every problem of the changes and of the changed config.
    """
    below = mapping_layer(config, source)
    above = text_layer(read_text(file, "config"), str(file)) if file else None
    layers = (_overridden(above, overrides), below) if above else (_overridden(below, overrides),)
    return _traced(layers, defaults or {}).config


def _overridden(layer: Layer, overrides: Sequence[str]) -> Layer:
    given = tuple(map(parse_override, overrides))
    raw, problems = plain(apply(dict(layer.raw), given))
    whole = raw if isinstance(raw, dict) else {}
    found = (*layer.problems, *problems, *unknown_nulls(whole))
    return replace(layer, raw=without_nulls(whole), overrides=given, problems=found)


def _traced(sources: tuple[Layer, ...], defaults: Mapping[str, object]) -> Traced:
    layers = translated(sources)
    parts = merged(layers)
    found = [(Origin(n, problem.path), problem) for n, one in enumerate(layers) for problem in one.problems]
    if len(layers) > 1:  # each source on its own first: report errors that a higher source hides
        found += [
            (Origin(n, problem.path), problem) for n, one in enumerate(layers) for problem in _sane(one)
        ]
    value = parts.plain()
    raw = _over_defaults(value if isinstance(value, dict) else {}, defaults)
    config, problems = _checked(raw)
    found += [(parts.trace(problem.path), problem) for problem in problems]
    if config is None or found:
        raise located_errors(layers, found)
    return Traced(config, parts, layers)


def _checked(raw: dict[str, object]) -> tuple[ExperimentConfig | None, list[Problem]]:
    """Validate fields, then the rules between them; return the config, if any, and all problems."""
    rules = broken_rules(raw)
    try:
        return ExperimentConfig.model_validate(raw), rules
    except ValidationError as error:
        return None, [*explain(error, raw), *rules]


def _sane(layer: Layer) -> list[Problem]:
    """Report problems of one source alone: names, types and ranges, but not missing fields."""
    if layer.checked:
        return []
    return [problem for problem in _checked(dict(layer.raw))[1] if not problem.later]


def _over_defaults(raw: dict[str, object], defaults: Mapping[str, object]) -> dict[str, object]:
    """Merge sections over the defaults by key, unless the config has another searcher with its own keys."""
    merged_ = {**defaults, **raw}
    for key, below in defaults.items():
        above = raw.get(key)
        if isinstance(above, dict) and isinstance(below, dict):
            same = above.get("name", below.get("name")) == below.get("name")
            merged_[key] = {**below, **above} if same else above
    return merged_
