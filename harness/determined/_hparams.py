"""Hyperparameters as code writes them into `config["hyperparameters"]`: the mappings the YAML has."""

# ruff: noqa: N802  (Determined's own names)

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

Spec = dict[str, object]


def Constant(val: object) -> Spec:
    return {"type": "const", "val": val}


def Integer(minval: int, maxval: int, count: int | None = None) -> Spec:
    """A whole number from `minval` to `maxval`; `count` values of it in a grid search."""
    return {"type": "int", "minval": minval, "maxval": maxval, **_grid(count)}


def Double(minval: float, maxval: float, count: int | None = None) -> Spec:
    """A number from `minval` to `maxval`; `count` values of it in a grid search."""
    return {"type": "double", "minval": minval, "maxval": maxval, **_grid(count)}


def Log(minval: float, maxval: float, base: float = 10.0, count: int | None = None) -> Spec:
    """`base` to the power of a number from `minval` to `maxval`; `count` values of it in a grid search."""
    return {"type": "log", "minval": minval, "maxval": maxval, "base": base, **_grid(count)}


def Categorical(vals: Sequence[object]) -> Spec:
    return {"type": "categorical", "vals": list(vals)}


def _grid(count: int | None) -> Spec:
    return {} if count is None else {"count": count}
