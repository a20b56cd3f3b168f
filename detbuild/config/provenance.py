"""The source of each value of a complete config: a line of a file, an option, or a default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from detbuild.config.problems import dotted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from detbuild.config.parse import Traced
    from detbuild.config.parts import Origin, Part
    from detbuild.config.problems import KeyPath

DEFAULT: Final = "default"
# Null until submission; `rewrite.completed` fills them.
_AT_SUBMISSION: Final[Mapping[KeyPath, str]] = {
    ("name",): "chosen at submission",
    ("reproducibility", "experiment_seed"): "drawn at submission",
}


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
