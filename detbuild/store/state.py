"""Loads the state of an experiment from its journal and the records of its runs.

`detbuild list`, `describe`, `wait`, the SDK and the controller all use it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from detbuild.store.ledger import StateFold
from detbuild.store.progress import Goal, trial_progress
from detbuild.store.runs import RunRecords, read_run
from detbuild.store.states import ENDED, ExperimentState, RunState, TrialState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from detbuild.store import journal
    from detbuild.store.folder import ExperimentFolder, Header

__all__ = ["ENDED", "ExperimentState", "RunState", "TrialState", "fold", "load", "run_records"]


def fold(header: Header, entries: Iterable[journal.Entry]) -> ExperimentState:
    """Return the state from the journal alone; `progress` of the trials is empty."""
    return StateFold(header, entries).snapshot()


def run_records(folder: ExperimentFolder, trial: TrialState) -> tuple[RunRecords, ...]:
    """Read the records of all runs of a trial, in order."""
    return tuple(read_run(folder.run(trial.id, r.run), over=r.finished is not None) for r in trial.runs)


def load(
    folder: ExperimentFolder,
    read: Callable[[ExperimentFolder, TrialState], Sequence[RunRecords]] = run_records,
) -> ExperimentState:
    """Load the complete state of an experiment.

    Args:
        read: Reads the records of all runs of a trial.
    """
    header = folder.header()
    entries, damage = folder.journal_with_damage()
    folded = StateFold(header, entries)
    goal = Goal(header.metric, header.smaller_is_better)

    def with_progress(trial: TrialState) -> TrialState:
        return replace(trial, progress=trial_progress(read(folder, trial), goal, folded.stored))

    state = folded.snapshot()
    trials = {number: with_progress(trial) for number, trial in state.trials.items()}
    return replace(state, trials=trials, damage=damage)
