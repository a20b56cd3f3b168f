"""Splits the trials of an adaptive search over brackets: halving searches with more or fewer rungs."""

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
