"""Determined 0.12's adaptive search: synchronous halving in several brackets, sized by a training budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detbuild.search.sync_halving import SyncHalving, stages_for_budget
from detbuild.search.tournament import Tournament

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detbuild.search.base import Trials
    from determined._run_info import Length


def adaptive(
    trials: Trials, rungs: Sequence[int], *, length: Length, budget: int, divisor: float
) -> Tournament:
    """Split the budget evenly over one bracket per number of rungs."""
    each = budget // len(rungs)
    plans = [
        stages_for_budget(num_rungs=num_rungs, length=length.count, budget=each, divisor=divisor)
        for num_rungs in rungs
    ]
    return Tournament([SyncHalving(trials, plan, length.unit) for plan in plans])
