"""Reads the state of a trial without its siblings, of which there may be thousands."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from detbuild.errors import ConfigError
from detbuild.store.state import Goal, fold, run_records, trial_progress
from determined.experimental.client import _host

if TYPE_CHECKING:
    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.state import ExperimentState, TrialState


def experiment_state(folder: ExperimentFolder) -> ExperimentState:
    """Return the experiment's state by its journal, without metrics of trials."""
    return fold(folder.header(), folder.journal())


def journal_state(folder: ExperimentFolder, number: int) -> TrialState:
    """Return a trial's state by the journal.

    Raises:
        ConfigError: The trial does not exist.
    """
    trials = experiment_state(folder).trials
    if number not in trials:
        there = ", ".join(map(str, trials)) or "none yet"
        raise ConfigError(f"experiment {folder.id} has no trial {number}", hint=f"its trials: {there}")
    return trials[number]


def trial_state(numbers: tuple[int, int]) -> tuple[TrialState, ExperimentFolder]:
    """Return the state of one trial with its progress.

    Raises:
        NotFound: The trial does not exist.
    """
    with _host.found():
        folder = _host.home().experiment(numbers[0])
        trial, header = journal_state(folder, numbers[1]), folder.header()
        goal = Goal(header.metric, header.smaller_is_better)
        return replace(trial, progress=trial_progress(run_records(folder, trial), goal)), folder
