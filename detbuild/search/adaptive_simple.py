"""Determined 0.12's adaptive_simple: synchronous halving in several brackets, sized by a number of trials."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detbuild.search.brackets import even_split
from detbuild.search.sync_halving import SyncHalving, stages_for_trials
from detbuild.search.tournament import Tournament

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detbuild.search.base import Trials
    from determined._run_info import Length


def adaptive_simple(
    trials: Trials, rungs: Sequence[int], *, length: Length, max_trials: int, divisor: float
) -> Tournament:
    """Split the trials evenly over one bracket per number of rungs."""
    shares = even_split(max_trials, len(rungs))
    plans = [
        stages_for_trials(num_rungs=num_rungs, length=length.count, trials=share, divisor=divisor)
        for num_rungs, share in zip(rungs, shares, strict=True)
    ]
    return Tournament([SyncHalving(trials, plan, length.unit) for plan in plans])
