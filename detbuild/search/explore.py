"""Perturbs the hyperparameters of a copy in population-based training."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from detbuild.config.hyperparameters import Double, Int, Log, Nested, draw_one

if TYPE_CHECKING:
    from collections.abc import Mapping

    from detbuild.config.hyperparameters import Hyperparameter, RandomState
    from detbuild.config.searcher import Explore


def explore(
    hyperparameters: Mapping[str, Hyperparameter],
    old: Mapping[str, object],
    how: Explore,
    random: RandomState,
) -> dict[str, object]:
    """Resample or perturb each value, in the order of the names."""
    return {
        name: _explored(hyperparameters[name], old[name], how, random) for name in sorted(hyperparameters)
    }


def _explored(hyperparameter: Hyperparameter, value: object, how: Explore, random: RandomState) -> object:
    if isinstance(hyperparameter, Nested) and isinstance(value, dict):
        return explore(hyperparameter.root, value, how, random)
    if random.uniform(0, 1) < how.resample_probability:
        return draw_one(hyperparameter, random)
    down = random.uniform(0, 1) < 0.5  # noqa: PLR2004  (equal chances)
    factor = 1 - how.perturb_factor if down else 1 + how.perturb_factor
    match hyperparameter, value:
        case Int(minval=low, maxval=high), int():
            moved = value * factor
            return min(max(math.floor(moved) if down else math.ceil(moved), low), high)
        case Double(minval=low, maxval=high), float():
            return min(max(value * factor, low), high)
        case Log(minval=low, maxval=high, base=base), float():
            ends = sorted((base**low, base**high))
            return min(max(value * factor, ends[0]), ends[1])
    return value
