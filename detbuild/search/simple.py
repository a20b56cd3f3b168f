"""The searches that train each trial once: `single`, `random` and `grid`.

The axes of a grid are the leaves in the order of their names, nested ones at the name of their map; the first
varies slowest. As in later versions of Determined, the last point is trial 1.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from detbuild.config.hyperparameters import Categorical, Const, Int, Log, leaves
from detbuild.search.base import assembled
from detbuild.search.method import Close, Train, TrialEnd

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from detbuild.config.hyperparameters import Hyperparameter, Leaf, Path
    from detbuild.search.base import Trials
    from detbuild.search.method import Action, Create
    from determined._contract.run_info import Length


def single_search(trials: Trials, *, length: Length | None) -> SingleSegment:
    """Create a random search of one trial, not replaced if its hyperparameters are invalid."""
    return SingleSegment(trials.new, max_trials=1, max_concurrent_trials=1, length=length)


class SingleSegment:
    """Trials that are trained once, to the full length, at most `max_concurrent_trials` at a time.

    Args:
        make: creates the next trial.
        max_trials: number of trials.
        max_concurrent_trials: 0 for no limit.
        length: None lets the trial's own code decide when to end.
        replace: whether to replace a trial with invalid hyperparameters; called for each.
    """

    needs_every_validation = False

    def __init__(
        self,
        make: Callable[[], Create],
        *,
        max_trials: int,
        max_concurrent_trials: int,
        length: Length | None,
        replace: Callable[[], bool] = lambda: False,
    ) -> None:
        self._make, self._replace, self.length = make, replace, length
        self.max_trials, self._concurrent = max_trials, max_concurrent_trials or max_trials
        self._made = self._done = 0

    @property
    def progress(self) -> float:
        return self._done / self.max_trials

    @property
    def share(self) -> float:
        return 1 / self.max_trials

    def begin(self) -> list[Action]:
        return [action for _ in range(min(self.max_trials, self._concurrent)) for action in self._next()]

    def validated(self, trial_id: int, time: float, cost: float) -> list[Action]:  # noqa: ARG002
        return []

    def ended(self, trial_id: int, reason: TrialEnd) -> list[Action]:  # noqa: ARG002
        if reason is TrialEnd.INVALID_HP and self._replace():
            self._made -= 1
        else:
            self._done += 1
        return self._next() if self._made < self.max_trials else []

    def _next(self) -> list[Action]:
        self._made += 1
        create = self._make()
        trial_id = create.trial_id
        return [create, Train(trial_id=trial_id, length=self.length), Close(trial_id=trial_id)]


def random_search(
    trials: Trials, *, max_trials: int, max_concurrent_trials: int, length: Length | None
) -> SingleSegment:
    """Create a trial whenever one ends, up to `max_trials`; invalid ones are replaced and not counted."""
    return SingleSegment(
        trials.new,
        max_trials=max_trials,
        max_concurrent_trials=max_concurrent_trials,
        length=length,
        replace=trials.may_replace,
    )


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
