"""The values of a config with their origins, which merging preserves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from detbuild.config.problems import KeyPath


@dataclass(frozen=True, slots=True)
class Origin:
    """The source of a value: the number of its layer, 0 for the highest, and its path there."""

    layer: int
    path: KeyPath


@dataclass(frozen=True, slots=True)
class Part:
    """A value with its origin: a map of parts, a tuple of parts or a scalar."""

    value: object
    origin: Origin

    @property
    def map(self) -> Mapping[str, Part] | None:
        return self.value if isinstance(self.value, dict) else None

    @property
    def items(self) -> tuple[Part, ...] | None:
        return self.value if isinstance(self.value, tuple) else None

    def get(self, key: str) -> Part | None:
        return self.map.get(key) if self.map is not None else None

    def scalar(self, key: str) -> object:
        """Return the scalar under a key; None if absent or not a scalar."""
        part = self.get(key)
        return None if part is None or part.map is not None or part.items is not None else part.value

    def plain(self) -> object:
        """Return the value as plain maps and lists."""
        if self.map is not None:
            return {key: part.plain() for key, part in self.map.items()}
        if self.items is not None:
            return [part.plain() for part in self.items]
        return self.value

    def trace(self, path: KeyPath) -> Origin:
        """Return the origin of the value at a path; parts of the path below the config are kept."""
        part = self
        for depth, key in enumerate(path):
            below = part.below(key)
            if below is None:
                return Origin(part.origin.layer, (*part.origin.path, *path[depth:]))
            part = below
        return part.origin

    def below(self, key: str | int) -> Part | None:
        if isinstance(key, str):
            return self.get(key)
        items = self.items or ()
        return items[key] if -len(items) <= key < len(items) else None

    def with_map(self, value: Mapping[str, Part]) -> Part:
        return Part(dict(value), self.origin)


def parted(value: object, layer: int, path: KeyPath = ()) -> Part:
    """Wrap a plain value in parts with their origins."""
    inside: object = value
    if isinstance(value, dict):
        inside = {key: parted(item, layer, (*path, key)) for key, item in value.items()}
    elif isinstance(value, list):
        inside = tuple(parted(item, layer, (*path, index)) for index, item in enumerate(value))
    return Part(inside, Origin(layer, path))


def changed(part: Part, path: tuple[str, ...], change: Callable[[Part], Part]) -> Part:
    """Copy with the part at a path of keys changed, if present."""
    if not path:
        return change(part)
    below = part.get(path[0])
    if below is None or part.map is None:
        return part
    return part.with_map({**part.map, path[0]: changed(below, path[1:], change)})
