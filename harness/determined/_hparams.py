"""Hyperparameters for `config["hyperparameters"]`: the YAML's values, and how to sample them."""

# ruff: noqa: N802  (Determined's own names)

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Spec = dict[str, object]


def Constant(value: object) -> Spec:
    return {"type": "const", "val": value}


def Integer(minval: int, maxval: int, count: int | None = None) -> Spec:
    """An integer from `minval` to `maxval`; a grid search uses `count` values of it."""
    return {"type": "int", "minval": minval, "maxval": maxval, **_grid(count)}


def Double(minval: float, maxval: float, count: int | None = None) -> Spec:
    """A number from `minval` to `maxval`; a grid search uses `count` values of it."""
    return {"type": "double", "minval": minval, "maxval": maxval, **_grid(count)}


def Log(minval: float, maxval: float, base: float = 10.0, count: int | None = None) -> Spec:
    """`base` to the power of a number from `minval` to `maxval`; a grid search uses `count` values of it."""
    return {"type": "log", "minval": minval, "maxval": maxval, "base": base, **_grid(count)}


def Categorical(vals: Sequence[object]) -> Spec:
    return {"type": "categorical", "vals": list(vals)}


def _grid(count: int | None) -> Spec:
    return {} if count is None else {"count": count}


def sampled(hyperparameters: object) -> dict[str, object]:
    """Sample one value of each, nested ones too; keep values that are not ranges."""
    given = hyperparameters if isinstance(hyperparameters, Mapping) else {}
    return {str(name): _drawn(spec) for name, spec in given.items()}


def _drawn(spec: Any) -> object:  # noqa: ANN401  (any value of a config)
    if not isinstance(spec, Mapping):
        return spec
    draw = _DRAWS.get(spec.get("type", ""))
    return draw(spec) if draw else sampled(spec)


_DRAWS: dict[object, Callable[[Mapping[str, Any]], object]] = {
    "const": lambda spec: spec["val"],
    "int": lambda spec: random.randint(spec["minval"], spec["maxval"]),  # noqa: S311  (no secret)
    "double": lambda spec: random.uniform(spec["minval"], spec["maxval"]),  # noqa: S311
    "log": lambda spec: spec.get("base", 10.0) ** random.uniform(spec["minval"], spec["maxval"]),  # noqa: S311
    "categorical": lambda spec: random.choice(spec["vals"]),  # noqa: S311
}
