"""Parses YAML or a Python mapping into an ExperimentConfig, and writes it with the source of each value.

All sources are merged first and validated as one value. Rules between fields are checked on plain values, so
that an invalid field does not hide them. Every problem is reported at once, at its place in its source.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from detbuild.config.experiment import PROJECT_FIELDS, ExperimentConfig, parse_entrypoint
from detbuild.config.explain import explain, unknown_nulls
from detbuild.config.searcher import METHODS, WITHOUT_MAX_LENGTH, Adaptive, Asha, Budgeted, Synchronous
from detbuild.config.section import integral, training_length
from detbuild.config.sources import (
    Layer,
    Origin,
    Part,
    apply,
    document_layer,
    located_errors,
    mapping_layer,
    merged,
    parse_override,
    text_layer,
    translated,
    without_nulls,
)
from detbuild.config.yaml import Problem, dotted, plain, plain_scalar, read_document, read_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from detbuild.config.yaml import KeyPath, Node
    from determined._contract.run_info import Length

# Optional with `create(local=True)`: the caller passes the class, and no trials are compared.
LOCAL_DEFAULTS: Final[Mapping[str, object]] = {
    "entrypoint": None,
    "searcher": {"name": "single", "metric": None, "max_length": {"batches": 100}},
}
_RANGES: Final = frozenset({"int", "double", "log"})
DEFAULT: Final = "default"
# Null until submission; `rewrite.completed` fills them.
_AT_SUBMISSION: Final[Mapping[KeyPath, str]] = {
    ("name",): "chosen at submission",
    ("reproducibility", "experiment_seed"): "drawn at submission",
}
_WIDEST: Final = 60  # column of the comments, unless a value is longer
_WORD: Final = re.compile(r"[A-Za-z_./][\w./@+-]*(:[\w./@+-]+)*", re.ASCII)
_BASIC_PLANE: Final = 0xFFFF


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
    text = read_text(path, "experiment config")
    return trace_text(text, source=str(path), overrides=overrides, below=below)


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
    return trace_document(read_document(text, source), source=source, overrides=overrides, below=below)


def trace_document(
    document: Node, *, source: str, overrides: Sequence[str] = (), below: Sequence[Layer] = ()
) -> Traced:
    """Check as `parse_config` a document that was read, and keep the source of each value."""
    return _traced((_overridden(document_layer(document, source), overrides), *below), {})


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
    rules = _broken_rules(raw)
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


def _broken_rules(raw: Mapping[str, object]) -> list[Problem]:
    """Report every broken rule between fields; fields of the wrong type are ignored.

    Args:
        raw: a config without legacy syntax and nulls; fields may be absent or invalid.
    """
    searcher, resources = raw.get("searcher"), raw.get("resources")
    found = [*_project_in_workspace(raw)]
    if isinstance(resources, dict):
        found += _slots_for_one_trial(resources)
    if isinstance(searcher, dict):
        found += _searcher_rules(searcher)
        found += _length_for_a_trial_class(raw, searcher)
        hyperparameters = raw.get("hyperparameters")
        if searcher.get("name") == "grid" and isinstance(hyperparameters, dict):
            found += _points_for_a_grid(hyperparameters, ("hyperparameters",))
    return found


def _project_in_workspace(raw: Mapping[str, object]) -> Iterator[Problem]:
    given = [name for name in PROJECT_FIELDS if raw.get(name)]
    if len(given) == 1:
        (other,) = set(PROJECT_FIELDS) - set(given)
        yield Problem((given[0],), f"needs {other} too", f"add `{other}`, or remove {given[0]}", later=True)


def _slots_for_one_trial(resources: Mapping[str, object]) -> Iterator[Problem]:
    most, slots = integral(resources.get("max_slots")), integral(resources.get("slots_per_trial", 1))
    if type(most) is int and type(slots) is int and 0 <= most < slots:
        what = f"must be at least slots_per_trial, {slots}, not {most}"
        yield Problem(("resources", "max_slots"), what, later=True)


def _searcher_rules(searcher: Mapping[str, object]) -> Iterator[Problem]:
    sources = [searcher.get(name) for name in ("source_trial_id", "source_checkpoint_uuid")]
    if None not in sources:
        what = "cannot be combined with source_trial_id"
        yield Problem(("searcher", "source_checkpoint_uuid"), what, "keep one of the two")
    method = METHODS.get(str(searcher.get("name")))
    if method is not None and issubclass(method, Asha):
        yield from _a_top_rung(searcher)
    if method is not None and issubclass(method, Synchronous) and "max_length" not in searcher:
        yield Problem(("searcher",), "needs max_length", "add `max_length: {batches: 1000}`", later=True)
    if method is not None and issubclass(method, Budgeted):
        lengths = training_length(searcher.get("budget")), training_length(searcher.get("max_length"))
        yield from _budget(*lengths, shared=method is Adaptive)


def _a_top_rung(searcher: Mapping[str, object]) -> Iterator[Problem]:
    by_time = {name in searcher for name in ("max_time", "time_metric")}
    if len(by_time) > 1 or ("max_length" not in searcher and by_time == {False}):
        hint = "add `max_length: {batches: 1000}`, or `max_time: 1000` and `time_metric: batches`"
        what = "needs max_length, or max_time and time_metric together"
        yield Problem(("searcher",), what, hint, later=True)


def _budget(budget: Length | None, longest: Length | None, *, shared: bool) -> Iterator[Problem]:
    at = ("searcher", "budget")
    if budget is None or longest is None:
        return
    if budget.unit != longest.unit:
        what = f"is in {budget.unit}, but max_length is in {longest.unit}"
        yield Problem(at, what, "use the same unit for both", later=True)
    elif shared and budget.count <= longest.count:
        what = f"must be above max_length, {longest.count}, not {budget.count}"
        yield Problem(at, what, "raise it: all trials share it", later=True)


def _length_for_a_trial_class(raw: Mapping[str, object], searcher: Mapping[str, object]) -> Iterator[Problem]:
    try:
        trial_class = parse_entrypoint(raw.get("entrypoint")).kind == "trial"
    except PydanticCustomError:  # the field itself has an error
        return
    needs_length = METHODS.keys() - WITHOUT_MAX_LENGTH
    if trial_class and "max_length" not in searcher and str(searcher.get("name")) in needs_length:
        what = "needs max_length to train a trial class"
        yield Problem(("searcher",), what, "add `max_length: {epochs: 1}` or another length", later=True)


def _points_for_a_grid(values: Mapping[str, object], at: tuple[str, ...]) -> Iterator[Problem]:
    for name, value in values.items():
        if not isinstance(value, dict):
            continue
        if "type" not in value:
            yield from _points_for_a_grid(value, (*at, name))
        elif str(value["type"]) in _RANGES and value.get("count") is None:
            hint = "add `count:`, the number of points of the range"
            yield Problem((*at, name), "needs count for the grid searcher", hint, later=True)


@dataclass(frozen=True, slots=True)
class Value:
    """A scalar of the config, or an empty map or list, with its source."""

    path: KeyPath
    value: object
    source: str


def values(traced: Traced, shown: Mapping[str, object]) -> Iterator[Value]:
    """Yield every value of the config in the order of its fields.

    Args:
        traced: the config with its sources.
        shown: its values, with or without secrets.
    """
    yield from _values(traced, (), dict(shown), traced.parts)


def _values(traced: Traced, path: KeyPath, value: object, part: Part | None) -> Iterator[Value]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _values(traced, (*path, key), item, _below(part, key))
    elif isinstance(value, list) and value:
        for index, (item, below) in enumerate(zip(value, _items(path, value, part), strict=True)):
            yield from _values(traced, (*path, index), item, below)
    elif part is not None:
        yield Value(path, value, _source_text(traced, part.origin))
    else:
        yield Value(path, value, _AT_SUBMISSION.get(path, DEFAULT) if value is None else DEFAULT)


def _below(part: Part | None, key: str) -> Part | None:
    """Return the source part under a key; a short form, e.g. one image for all devices, covers all keys."""
    if part is None or part.map is None:
        return part
    return part.get(key) or (part.get("gpu") if key == "cuda" else None)


def _items(path: KeyPath, value: list[object], part: Part | None) -> list[Part | None]:
    """Return the source part of each item; merging may have added or removed items."""
    if part is None or part.items is None:
        return [part] * len(value)
    if path == ("labels",):  # duplicates are dropped
        return [next((one for one in part.items if one.value == label), None) for label in value]
    defaults = len(value) - len(part.items)  # default log_policies come first
    return [None] * defaults + list(part.items)


def _source_text(traced: Traced, origin: Origin) -> str:
    layer = traced.layers[origin.layer]
    for override in reversed(layer.overrides):
        if override.sets(origin.path):
            return f"--config {dotted(override.path)}"
    if layer.document is None:
        return layer.title
    return f"{layer.title}:{layer.document.locate(layer.source_path(origin.path)).line}"


def written(values: Iterable[Value]) -> str:
    """Format in block style, one line per value; parsing it gives the same config.

    Args:
        values: grouped by section.
    """
    lines = list(_lines(values))
    width = min(_WIDEST, max((len(text) for text, source in lines if source), default=0))
    commented = (f"{text:<{width}}  # {_visible(source)}" if source else text for text, source in lines)
    return "".join(f"{line}\n" for line in commented)


def _lines(values: Iterable[Value]) -> Iterator[tuple[str, str]]:
    """Yield each line with the source of its value, if any."""
    above: KeyPath = ()
    for value in values:
        shared = _shared(above, value.path)
        *sections, last = value.path[shared:]
        lead = "  " * shared
        for depth, key in enumerate(sections, shared):
            if isinstance(key, int):  # its map or list starts on the same line
                lead += _key(key)
            else:
                yield f"{lead}{_key(key)}".rstrip(), ""
                lead = "  " * (depth + 1)
        yield f"{lead}{_key(last)}{_scalar(value.value)}", value.source
        above = value.path


def _shared(one: KeyPath, other: KeyPath) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((depth for depth, (a, b) in pairs if a != b), min(len(one), len(other)))


def _key(key: str | int) -> str:
    return "- " if isinstance(key, int) else f"{_scalar(key)}: "


def _scalar(value: object) -> str:
    if isinstance(value, str) and _WORD.fullmatch(value) and plain_scalar(value) == value:
        return value
    return _visible(json.dumps(value, ensure_ascii=False))


def _visible(text: str) -> str:
    """Escape line breaks and terminal escapes; inside quotes YAML reads them back."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    number = ord(character)
    return f"\\u{number:04x}" if number <= _BASIC_PLANE else f"\\U{number:08x}"
