"""How an adaptive search shares its trials between brackets: halving searches with more or fewer rungs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from detbuild.search.rungs import rungs_within

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detbuild.config.searcher import Mode


@dataclass(frozen=True, slots=True)
class Bracket:
    num_rungs: int
    max_trials: int
    max_concurrent_trials: int


def bracket_rungs(mode: Mode, max_rungs: int) -> list[int]:
    """The number of rungs of each bracket, the deepest first: it stops the most trials early."""
    fewest = {"conservative": 1, "standard": (max_rungs - 1) // 2 + 1, "aggressive": max_rungs}[mode]
    return [*range(max_rungs, fewest - 1, -1)]


def bracket_trials(max_trials: int, divisor: float, rungs: Sequence[int]) -> list[int]:
    """About the same work for each bracket, at least one trial, and what is left over for the first."""
    weights = [divisor ** (count - 1) / count for count in rungs]
    total = sum(weights)
    trials = [max(int(weight / total * max_trials), 1) for weight in weights]
    trials[0] += max(max_trials - sum(trials), 0)
    return trials


def bracket_concurrency(max_concurrent_trials: int, divisor: float, trials: Sequence[int]) -> list[int]:
    """An even split, at least one each, the rest to the first; without a limit as many for each bracket."""
    if max_concurrent_trials == 0:
        return [max(trials[-1], int(divisor))] * len(trials)
    each, rest = divmod(max(max_concurrent_trials, len(trials)), len(trials))
    return [each + (index < rest) for index in range(len(trials))]


def even_split(total: int, parts: int) -> list[int]:
    """`total` in `parts`, the rest to the first, at least one each."""
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
    """The brackets of adaptive_asha. `given` rungs are taken as they are; others fit length and trials."""
    if given:
        rungs = sorted(given, reverse=True)
    else:
        fits = rungs_within(max_trials, divisor, rungs_within(length, divisor, max_rungs))
        rungs = bracket_rungs(mode, fits)
    trials = bracket_trials(max_trials, divisor, rungs)
    concurrency = bracket_concurrency(max_concurrent_trials, divisor, trials)
    return [*map(Bracket, rungs, trials, concurrency)]
