"""How an experiment ends, from how its trials did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detbuild.store.journal import ExperimentFinished
from detbuild.store.states import State

if TYPE_CHECKING:
    from detbuild.store.ledger import StateFold


def conclusion(state: StateFold) -> ExperimentFinished:
    """One completed trial makes a success, unless a person cut the search short or it failed itself."""
    if state.failure:
        return ExperimentFinished(state=State.ERROR, why=state.failure)
    order = (
        (State.CANCELED, State.COMPLETED, State.ERROR)
        if state.ending
        else (State.COMPLETED, State.ERROR, State.CANCELED)
    )
    for name in order:
        tally = state.tallies[name]
        if tally.count:
            return ExperimentFinished(state=name, why=tally.why)
    return ExperimentFinished(state=State.CANCELED, why="stopped before it began")
