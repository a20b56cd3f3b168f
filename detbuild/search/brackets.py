"""Brackets of an adaptive search: halving searches with more or fewer rungs in one experiment.

Each bracket receives the events of its own trials; a rung holds its results, best first.

Algorithm: Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from detbuild.search.method import Create

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detbuild.config.searcher import Mode
    from detbuild.search.base import Policy
    from detbuild.search.method import Action, TrialEnd


@dataclass(frozen=True, slots=True)
class Bracket:
    num_rungs: int
    max_trials: int
    max_concurrent_trials: int


def bracket_rungs(mode: Mode, max_rungs: int) -> list[int]:
    """Return the number of rungs of each bracket, most rungs (most early stopping) first."""
    fewest = {"conservative": 1, "standard": (max_rungs - 1) // 2 + 1, "aggressive": max_rungs}[mode]
    return [*range(max_rungs, fewest - 1, -1)]


def bracket_trials(max_trials: int, divisor: float, rungs: Sequence[int]) -> list[int]:
    """Split trials for about equal work per bracket, at least one each; the first gets the rest."""
    weights = [divisor ** (count - 1) / count for count in rungs]
    total = sum(weights)
    trials = [max(int(weight / total * max_trials), 1) for weight in weights]
    trials[0] += max(max_trials - sum(trials), 0)
    return trials


def bracket_concurrency(max_concurrent_trials: int, divisor: float, trials: Sequence[int]) -> list[int]:
    """Split evenly, at least one each, the rest to the first; without a limit all brackets get the same."""
    if max_concurrent_trials == 0:
        return [max(trials[-1], int(divisor))] * len(trials)
    each, rest = divmod(max(max_concurrent_trials, len(trials)), len(trials))
    return [each + (index < rest) for index in range(len(trials))]


def even_split(total: int, parts: int) -> list[int]:
    """Split `total` evenly into `parts`, at least one each, the rest to the first."""
    each, rest = divmod(total, parts)
    return [max(each + (index < rest), 1) for index in range(parts)]


def asha_brackets(
    *,
    mode: Mode,
    given: Sequence[int],
    max_rungs: int,
    length: int,
    divisor: float,
    max_trials: int,
    max_concurrent_trials: int,
) -> list[Bracket]:
    """Return the brackets of adaptive_asha: `given` rungs, or those that fit length and trials."""
    if given:
        rungs = sorted(given, reverse=True)
    else:
        fits = rungs_within(max_trials, divisor, rungs_within(length, divisor, max_rungs))
        rungs = bracket_rungs(mode, fits)
    trials = bracket_trials(max_trials, divisor, rungs)
    concurrency = bracket_concurrency(max_concurrent_trials, divisor, trials)
    return [*map(Bracket, rungs, trials, concurrency)]


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


class Tournament:
    """Brackets that draw from one generator, in the order in which they begin."""

    share = 0.0

    def __init__(self, brackets: Sequence[Policy]) -> None:
        self.brackets = brackets
        self.bracket_of: dict[int, int] = {}

    @property
    def needs_every_validation(self) -> bool:
        return any(bracket.needs_every_validation for bracket in self.brackets)

    @property
    def progress(self) -> float:
        return sum(bracket.progress for bracket in self.brackets) / len(self.brackets)

    def begin(self) -> list[Action]:
        begun = (self._marked(index, bracket.begin()) for index, bracket in enumerate(self.brackets))
        return [action for actions in begun for action in actions]

    def validated(self, trial_id: int, time: float, cost: float) -> list[Action]:
        index = self.bracket_of[trial_id]
        return self._marked(index, self.brackets[index].validated(trial_id, time, cost))

    def ended(self, trial_id: int, reason: TrialEnd) -> list[Action]:
        index = self.bracket_of[trial_id]
        return self._marked(index, self.brackets[index].ended(trial_id, reason))

    def _marked(self, index: int, actions: list[Action]) -> list[Action]:
        for action in actions:
            if isinstance(action, Create):
                self.bracket_of[action.trial_id] = index
        return actions
