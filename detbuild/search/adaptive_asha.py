"""Adaptive ASHA: several ASHA brackets, because the best early-stopping rate is not known in advance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detbuild.search.async_halving import AsyncHalving, Halving, StoppingHalving
from detbuild.search.tournament import Tournament

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detbuild.search.base import Trials
    from detbuild.search.brackets import Bracket


def adaptive_asha(
    trials: Trials, brackets: Sequence[Bracket], *, length: int, unit: str, divisor: float, stopping: bool
) -> Tournament:
    """Create one ASHA search per bracket, in either form."""
    form = StoppingHalving if stopping else AsyncHalving
    return Tournament(
        [
            form(
                trials,
                Halving(
                    num_rungs=bracket.num_rungs,
                    length=length,
                    unit=unit,
                    divisor=divisor,
                    max_trials=bracket.max_trials,
                    max_concurrent_trials=bracket.max_concurrent_trials,
                ),
            )
            for bracket in brackets
        ]
    )
