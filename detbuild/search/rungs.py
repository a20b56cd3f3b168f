"""Rungs of successive halving: how long each trains, and the results in it, best first.

Algorithm: Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from fractions import Fraction


def rung_lengths(num_rungs: int, length: int, divisor: float) -> list[int]:
    """Total units of each rung: the top has `length`, each one below a `divisor`-th, and never less than 1.

    Powers are taken exactly, of the divisor's own binary value: equal on every host, and Determined's numbers
    wherever those do not depend on rounding.
    """
    exact = Fraction(divisor)
    return [max(int(length / exact**above), 1) for above in reversed(range(num_rungs))]


def rungs_within(limit: int, divisor: float, most: int) -> int:
    """How many of `most` rungs a length, or a number of trials, allows: 1 + the whole part of its logarithm.

    The logarithm is exact: the largest k with divisor**k <= limit. Determined truncates a quotient of two
    floating-point logarithms, and falls one short where its last digit does: 3 rungs for (1000, 10), here 4.
    """
    exact, power, count = Fraction(divisor), Fraction(divisor), 1
    while power <= limit and count < most:
        power *= exact
        count += 1
    return count


class Rung:
    """The results of one rung in order of their cost. Finding a place takes log n comparisons.

    Args:
        units: what a trial trains in total to enter.
    """

    def __init__(self, units: int) -> None:
        self.units = units
        self.running = 0  # trials on their way to this rung
        self._costs: list[float] = []
        self._trials: list[int] = []
        self._waiting: dict[int, float] = {}  # results that led to nothing yet, with their costs

    def __len__(self) -> int:
        return len(self._costs)

    def promote(self, trial_id: int, cost: float, divisor: float) -> tuple[int, float] | None:
        """Take a result, after equal ones; the best 1/divisor go up. Gives who goes up now, and its cost."""
        before, now = int(len(self) / divisor), int((len(self) + 1) / divisor)
        return self.promote_best(trial_id, cost, now, grown=now > before)

    def promote_best(
        self, trial_id: int, cost: float, best: int, *, grown: bool = True
    ) -> tuple[int, float] | None:
        """Take a result, after equal ones: the `best` first go up, at most one more of them than before.

        Either the newcomer is among them, or who stands at a new place goes up, unless it has gone.
        """
        index = bisect_right(self._costs, cost)
        self._insert(index, trial_id, cost)
        if index < best:
            return trial_id, cost
        self._waiting[trial_id] = cost
        if best <= 0 or not grown:
            return None
        last = self._trials[best - 1]
        value = self._waiting.pop(last, None)
        return None if value is None else (last, value)

    def survives(self, trial_id: int, cost: float, divisor: float) -> bool:
        """Take a result, before equal ones; True while it is among the best 1/divisor, or the only best."""
        index = bisect_left(self._costs, cost)
        self._insert(index, trial_id, cost)
        return index < max(int(len(self) / divisor), 1)

    def forget(self, trial_id: int) -> None:
        """Remove what the trial had reported, if anything."""
        if trial_id in self._trials:
            index = self._trials.index(trial_id)
            del self._trials[index], self._costs[index]
            self._waiting.pop(trial_id, None)

    def close(self) -> list[int]:
        """The trials that wait here, best first; they wait no longer."""
        waiting = sorted(self._waiting, key=self._waiting.__getitem__)
        self._waiting.clear()
        return waiting

    def _insert(self, index: int, trial_id: int, cost: float) -> None:
        self._costs.insert(index, cost)
        self._trials.insert(index, trial_id)
