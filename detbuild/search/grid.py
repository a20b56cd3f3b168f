"""Grid search: one trial for each point of the product of all hyperparameters.

The axes are the leaves in the order of their names, nested ones at the name of their map; the first varies
slowest. As in later versions of Determined, the last point is trial 1.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from detbuild.config.hyperparameters import Categorical, Const, Int, Log, leaves
from detbuild.search.leaves import assembled
from detbuild.search.random import SingleSegment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from detbuild.config.hyperparameters import Hyperparameter, Leaf, Path
    from detbuild.search.base import Trials
    from determined._run_info import Length


def grid_search(trials: Trials, *, max_concurrent_trials: int, length: Length | None) -> SingleSegment:
    """Create one trial per point; every range has a `count`."""
    grid = Grid(trials.hyperparameters)
    points = reversed(range(len(grid)))
    return SingleSegment(
        lambda: trials.new(grid[next(points)]),
        max_trials=len(grid),
        max_concurrent_trials=max_concurrent_trials,
        length=length,
    )


class Grid:
    """All points, computed on access: `grid[i]` are the hyperparameters of point i."""

    def __init__(self, hyperparameters: Mapping[str, Hyperparameter]) -> None:
        self._hyperparameters = hyperparameters
        self._axes = {path: axis(leaf) for path, leaf in leaves(hyperparameters)}

    def __len__(self) -> int:
        return math.prod(map(len, self._axes.values()))

    def __getitem__(self, index: int) -> dict[str, object]:
        values: dict[Path, object] = {}
        for path, axis in reversed(self._axes.items()):
            index, position = divmod(index, len(axis))
            values[path] = axis[position]
        return assembled(self._hyperparameters, values)


def axis(hyperparameter: Leaf) -> Sequence[object]:
    """Return the values of one hyperparameter; a range has a `count`."""
    if isinstance(hyperparameter, Const):
        return (hyperparameter.val,)
    if isinstance(hyperparameter, Categorical):
        return hyperparameter.vals
    count = hyperparameter.count
    assert count is not None  # checked by the config
    if isinstance(hyperparameter, Int):
        return _whole(hyperparameter.minval, hyperparameter.maxval, count)
    points = _spread(hyperparameter.minval, hyperparameter.maxval, count)
    return [hyperparameter.base**point for point in points] if isinstance(hyperparameter, Log) else points


def _spread(low: float, high: float, count: int) -> list[float]:
    if count == 1:
        return [(low + high) / 2]
    return [low + index * (high - low) / (count - 1) for index in range(count)]


def _whole(low: int, high: int, count: int) -> list[int]:
    """Spread distinct integers evenly; in integer arithmetic, so that no precision is lost."""
    count = min(count, high - low + 1)
    if count == 1:
        return [_rounded(low + high, 2)]
    return [_rounded(low * (count - 1) + index * (high - low), count - 1) for index in range(count)]


def _rounded(numerator: int, denominator: int) -> int:
    """Return the nearest integer, halves away from zero."""
    size = (2 * abs(numerator) + denominator) // (2 * denominator)
    return size if numerator >= 0 else -size
