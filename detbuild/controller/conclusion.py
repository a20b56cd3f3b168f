"""The final state of an experiment, from the states of its trials."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detbuild.store.journal import ExperimentFinished
from detbuild.store.state import State

if TYPE_CHECKING:
    from detbuild.store.state import StateFold


def conclusion(state: StateFold) -> ExperimentFinished:
    """Return COMPLETED if one trial completed, unless the search was canceled or failed."""
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
