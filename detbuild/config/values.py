"""Anything that looks like a config, as plain maps, lists and scalars that JSON can carry."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import PurePath
from typing import Final

from detbuild.config.document import MAX_DEPTH, MAX_NODES
from detbuild.config.problems import Path, Problem, show

SMALLEST: Final = -(1 << 63)
LARGEST: Final = (1 << 63) - 1
_UNFIT: Final = re.compile("[\0\ud800-\udfff]")


def plain(value: object) -> tuple[object, list[Problem]]:
    """Copy a value that came from YAML or from Python; what cannot be carried is a problem, and null in the copy."""
    walk = _Walk()
    return walk.value(value, ()), walk.problems


@dataclass(slots=True)
class _Walk:
    problems: list[Problem] = field(default_factory=list)
    nodes: int = 0

    def value(self, value: object, path: Path) -> object:
        self.nodes += 1
        if self.nodes > MAX_NODES or len(path) >= MAX_DEPTH:
            return self.too_much(path)
        if isinstance(value, Mapping):
            items = ((self.key(key, path), child) for key, child in value.items())
            return {key: self.value(child, (*path, key)) for key, child in items}
        if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray)):
            return [self.value(child, (*path, index)) for index, child in enumerate(value)]
        return self.scalar(value, path)

    def too_much(self, path: Path) -> None:
        if not any(problem.what.startswith("nests") for problem in self.problems):
            what = f"nests deeper than {MAX_DEPTH} or holds more than {MAX_NODES:,} values"
            self.problems.append(Problem(path[:3], what))

    def key(self, key: object, path: Path) -> str:
        if not isinstance(key, str):
            self.problems.append(Problem(path, f"a key must be text, not {_kind(key)}"))
        elif _UNFIT.search(key):
            self.problems.append(
                Problem((*path, key), "holds a NUL or half of a surrogate pair", "", on_key=True)
            )
        return str(key) if isinstance(key, (str, int, float)) else "?"

    def scalar(self, value: object, path: Path) -> object:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, (str, PurePath)):
            return self.text(str(value), path)
        if isinstance(value, Integral):
            return self.integer(int(value), path)
        if isinstance(value, Real):
            return self.real(float(value), path)
        return self.refuse(path, f"is {_kind(value)}, which no config can hold")

    def text(self, value: str, path: Path) -> object:
        if _UNFIT.search(value):
            return self.refuse(path, "holds a NUL or half of a surrogate pair")
        return value

    def integer(self, value: int, path: Path) -> object:
        if not SMALLEST <= value <= LARGEST:
            return self.refuse(path, f"must lie between -2**63 and 2**63-1; it has {value.bit_length()} bits")
        return value

    def real(self, value: float, path: Path) -> object:
        if not math.isfinite(value):
            return self.refuse(path, f"must be a finite number within ±1.8e308, not {show(value)}")
        return value

    def refuse(self, path: Path, what: str) -> None:
        self.problems.append(Problem(path, what))


def _kind(value: object) -> str:
    return f"a {type(value).__name__}"
