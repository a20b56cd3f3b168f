"""Determined 0.12's adaptive search: synchronous halving in several brackets, by a budget of training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detbuild.search.sync_halving import SyncHalving, planned
from detbuild.search.tournament import Tournament

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detbuild.search.base import Trials
    from determined._run_info import Length


def adaptive(
    trials: Trials, rungs: Sequence[int], *, length: Length, budget: int, divisor: float
) -> Tournament:
    """A bracket for each number of rungs; they share the budget evenly."""
    each = budget // len(rungs)
    plans = [
        planned(num_rungs=num_rungs, length=length.count, budget=each, divisor=divisor) for num_rungs in rungs
    ]
    return Tournament([SyncHalving(trials, plan, length.unit) for plan in plans])
