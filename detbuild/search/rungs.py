"""Rungs of successive halving: their lengths, and their results, best first.

Algorithm: Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from fractions import Fraction


def rung_lengths(num_rungs: int, length: int, divisor: float) -> list[int]:
    """Return the total length of each rung: `length` at the top, a `divisor`-th per rung below, at least 1.

    Powers are exact, so the lengths are the same on every host, and Determined's unless those depend on
    rounding.
    """
    exact = Fraction(divisor)
    return [max(int(length / exact**above), 1) for above in reversed(range(num_rungs))]


def rungs_within(limit: int, divisor: float, most: int) -> int:
    """Return how many of `most` rungs a length, or a number of trials, allows: 1 + floor(logarithm).

    The logarithm is exact: the largest k with divisor**k <= limit. Determined truncates a quotient of two
    floating-point logarithms, which may be one too few: 3 rungs for (1000, 10), here 4.
    """
    exact, power, count = Fraction(divisor), Fraction(divisor), 1
    while power <= limit and count < most:
        power *= exact
        count += 1
    return count


class Rung:
    """The results of one rung, sorted by cost; recording one takes log n comparisons.

    Args:
        units: total length that a trial trains to enter.
    """

    def __init__(self, units: int) -> None:
        self.units = units
        self.running = 0  # trials that train for this rung
        self._costs: list[float] = []
        self._trials: list[int] = []
        self._waiting: dict[int, float] = {}  # results not promoted yet, with their costs

    def __len__(self) -> int:
        return len(self._costs)

    def promote(self, trial_id: int, cost: float, divisor: float) -> tuple[int, float] | None:
        """Record a result, after equal ones; the best 1/divisor are promoted. Return the one promoted now."""
        before, now = int(len(self) / divisor), int((len(self) + 1) / divisor)
        return self.promote_best(trial_id, cost, now, grown=now > before)

    def promote_best(
        self, trial_id: int, cost: float, best: int, *, grown: bool = True
    ) -> tuple[int, float] | None:
        """Record a result, after equal ones; the first `best` are promoted, at most one more than before.

        Return the trial promoted now: the new one if among them, else the last of them if it still waits.
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
        """Record a result, before equal ones; return whether it is among the best 1/divisor, or the best."""
        index = bisect_left(self._costs, cost)
        self._insert(index, trial_id, cost)
        return index < max(int(len(self) / divisor), 1)

    def forget(self, trial_id: int) -> None:
        """Remove the trial's result, if any."""
        if trial_id in self._trials:
            index = self._trials.index(trial_id)
            del self._trials[index], self._costs[index]
            self._waiting.pop(trial_id, None)

    def close(self) -> list[int]:
        """Return the waiting trials, best first, and stop waiting for them."""
        waiting = sorted(self._waiting, key=self._waiting.__getitem__)
        self._waiting.clear()
        return waiting

    def _insert(self, index: int, trial_id: int, cost: float) -> None:
        self._costs.insert(index, cost)
        self._trials.insert(index, trial_id)
