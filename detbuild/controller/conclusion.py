"""How an experiment ends, from how its trials did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detbuild.store.journal import ExperimentFinished

if TYPE_CHECKING:
    from detbuild.store.ledger import StateFold


def conclusion(state: StateFold) -> ExperimentFinished:
    """One completed trial makes a success, unless a person cut the search short or it failed itself."""
    if state.failure:
        return ExperimentFinished(state="ERROR", why=state.failure)
    order = ("CANCELED", "COMPLETED", "ERROR") if state.ending else ("COMPLETED", "ERROR", "CANCELED")
    for name in order:
        tally = state.tallies[name]
        if tally.count:
            return ExperimentFinished(state=name, why=tally.why)
    return ExperimentFinished(state="CANCELED", why="stopped before it began")
