"""From YAML text, or a Python mapping, to an ExperimentConfig: the one place that handles untyped data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from detbuild.config.experiment import ExperimentConfig
from detbuild.config.explain import explain, unknown_nulls
from detbuild.config.layers import (
    Layer,
    errors_of,
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

# What `create(local=True)` may leave out: the caller hands over the class, and nothing is compared.
LOCAL_DEFAULTS: Final[Mapping[str, object]] = {
    "entrypoint": None,
    "searcher": {"name": "single", "metric": None, "max_length": {"batches": 100}},
}


@dataclass(frozen=True, slots=True)
class Traced:
    """A config, the merged values that it was made of, and the layers these came from."""

    config: ExperimentConfig
    parts: Part
    layers: tuple[Layer, ...]

    def place(self, path: KeyPath) -> str:
        """Where the value at a path was written: `file:line:column`, or what else to call it."""
        origin = self.parts.trace(path)
        return self.layers[origin.layer].place(origin.path)[1]


def load_config(path: Path, overrides: Sequence[str] = (), below: Sequence[Layer] = ()) -> ExperimentConfig:
    """Read an experiment config file.

    Args:
        path: the file.
        overrides: `--config` values, laid over it in order.
        below: what the file is laid over, highest first: templates, then the host's defaults.

    Raises:
        ConfigError: it cannot be read, or `parse_config` refuses it.
    """
    return trace_config(path, overrides, below).config


def trace_config(path: Path, overrides: Sequence[str] = (), below: Sequence[Layer] = ()) -> Traced:
    """`load_config`, and where each value came from."""
    layer = text_layer(read_text(path, "experiment config"), str(path))
    return _traced((_overridden(layer, overrides), *below), {})


def parse_config(
    text: str, *, source: str = "<config>", overrides: Sequence[str] = (), below: Sequence[Layer] = ()
) -> ExperimentConfig:
    """Parse YAML 1.2 and lay `--config` overrides over it, and all that over the layers below.

    Raises:
        ConfigErrors: every problem of the config, each with `source:line:column`.
    """
    return trace_text(text, source=source, overrides=overrides, below=below).config


def trace_text(
    text: str, *, source: str, overrides: Sequence[str] = (), below: Sequence[Layer] = ()
) -> Traced:
    """`parse_config`, and where each value came from."""
    return _traced((_overridden(text_layer(text, source), overrides), *below), {})


def config_from_mapping(
    mapping: Mapping[str, object],
    *,
    source: str = "config",
    overrides: Sequence[str] = (),
    defaults: Mapping[str, object] | None = None,
    below: Sequence[Layer] = (),
) -> ExperimentConfig:
    """Make a config of a Python mapping; `defaults` (such as LOCAL_DEFAULTS) lie below all.

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
    """Lay changes over a complete config: those of a file, which need not be complete, and over it overrides.

    Raises:
        ConfigError: the file cannot be read.
        ConfigErrors: every problem of the changes, and of what they make of the config.
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
    if len(layers) > 1:  # each source on its own first: a slip is one even where a higher source hides it
        found += [
            (Origin(n, problem.path), problem) for n, one in enumerate(layers) for problem in _sane(one)
        ]
    value = parts.plain()
    raw = _over_defaults(value if isinstance(value, dict) else {}, defaults)
    config, problems = _checked(raw)
    found += [(parts.trace(problem.path), problem) for problem in problems]
    if config is None or found:
        raise errors_of(layers, found)
    return Traced(config, parts, layers)


def _checked(raw: dict[str, object]) -> tuple[ExperimentConfig | None, list[Problem]]:
    """The config, if its fields allow one, and all that is wrong: fields by themselves, then their rules."""
    rules = broken_rules(raw)
    try:
        return ExperimentConfig.model_validate(raw), rules
    except ValidationError as error:
        return None, [*explain(error, raw), *rules]


def _sane(layer: Layer) -> list[Problem]:
    """What is wrong with a source whatever the others say: names, types and ranges, not what is missing."""
    if layer.checked:
        return []
    return [problem for problem in _checked(dict(layer.raw))[1] if not problem.later]


def _over_defaults(raw: dict[str, object], defaults: Mapping[str, object]) -> dict[str, object]:
    """Sections merge key by key, unless the config chose another searcher, whose keys mean other things."""
    merged_ = {**defaults, **raw}
    for key, below in defaults.items():
        above = raw.get(key)
        if isinstance(above, dict) and isinstance(below, dict):
            same = above.get("name", below.get("name")) == below.get("name")
            merged_[key] = {**below, **above} if same else above
    return merged_
