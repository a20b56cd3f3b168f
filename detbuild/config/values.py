"""Converts config-like values to plain maps, lists and scalars that JSON can represent."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import PurePath
from typing import Final

from detbuild.config.document import MAX_DEPTH, MAX_NODES, has_free_keys
from detbuild.config.problems import KeyPath, Problem, show
from detbuild.config.scalars import key_text

SMALLEST: Final = -(1 << 63)
LARGEST: Final = (1 << 63) - 1
_NOT_JSON: Final = re.compile("[\0\ud800-\udfff]")


def plain(value: object) -> tuple[object, list[Problem]]:
    """Copy a value of YAML or Python; values that JSON cannot represent become null and a problem."""
    walk = _Walk()
    return walk.value(value, ()), walk.problems


@dataclass(slots=True)
class _Walk:
    problems: list[Problem] = field(default_factory=list)
    nodes: int = 0

    def value(self, value: object, path: KeyPath) -> object:
        self.nodes += 1
        if self.nodes > MAX_NODES or len(path) >= MAX_DEPTH:
            self.too_much(path)
            return None
        if isinstance(value, Mapping):
            return {name: self.value(value[key], (*path, name)) for key, name in self.keys(value, path)}
        if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray)):
            return [self.value(child, (*path, index)) for index, child in enumerate(value)]
        return self.scalar(value, path)

    def too_much(self, path: KeyPath) -> None:
        if not any(problem.what.startswith("is nested") for problem in self.problems):
            what = f"is nested more than {MAX_DEPTH} levels deep or has more than {MAX_NODES:,} values"
            self.problems.append(Problem(path[:3], what))

    def keys(self, value: Mapping[object, object], path: KeyPath) -> Iterator[tuple[object, str]]:
        """Yield valid keys with their text; report the others."""
        seen = set[str]()
        for key in value:
            name = _key(key, free=has_free_keys(path))
            if name is None:
                self.problems.append(Problem(path, f"a key must be text, not {_kind(key)}"))
            elif _NOT_JSON.search(name) or name in seen:
                what = "is given twice" if name in seen else "contains a NUL or a lone surrogate"
                self.problems.append(Problem((*path, name), what, on_key=True))
            else:
                seen.add(name)
                yield key, name

    def scalar(self, value: object, path: KeyPath) -> object:
        try:
            return _leaf(value)
        except ValueError as error:
            self.problems.append(Problem(path, str(error)))
            return None


def _key(key: object, *, free: bool) -> str | None:
    """Return the text of a key; None if it is not valid."""
    if isinstance(key, str):
        return key
    return key_text(key) if free and (key is None or isinstance(key, (bool, int, float))) else None


def _leaf(value: object) -> object:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (str, PurePath)):
        return _text(str(value))
    if isinstance(value, Integral):
        return _integer(int(value))
    if isinstance(value, Real):
        return _real(float(value))
    raise ValueError(f"is {_kind(value)}, which a config cannot contain")


def _text(value: str) -> str:
    if _NOT_JSON.search(value):
        raise ValueError("contains a NUL or a lone surrogate")
    return value


def _integer(value: int) -> int:
    if not SMALLEST <= value <= LARGEST:
        raise ValueError(f"must be between -2**63 and 2**63-1; it has {value.bit_length()} bits")
    return value


def _real(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"must be a finite number within ±1.8e308, not {show(value)}")
    return value


def _kind(value: object) -> str:
    return f"a value of type {type(value).__name__}"
