"""One trial, with its hyperparameters drawn once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detbuild.search.random import SingleSegment

if TYPE_CHECKING:
    from detbuild.search.base import Trials
    from determined._run_info import Length


def single_search(trials: Trials, *, length: Length | None) -> SingleSegment:
    """Create a random search of one trial, not replaced if its hyperparameters are invalid."""
    return SingleSegment(trials.new, max_trials=1, max_concurrent_trials=1, length=length)
