"""Read what the listing commands show from the files of a home."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detbuild.cli import documents
from detbuild.cli.output import no_output
from detbuild.errors import ConfigError, EngineError
from detbuild.store.cache import journal_warnings, load_cached, summaries
from detbuild.store.home import Home, damaged

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from detbuild.cli.documents import Document
    from detbuild.events import Emit
    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.state import ExperimentState, TrialState


def experiments(home: Path, emit: Emit, *, archived: bool = True) -> Iterator[Document]:
    """Yield all experiments, newest first, without unfinished submissions.

    Damaged ones are skipped, with a warning to `emit`.
    """
    opened = Home.open(home)
    for summary in summaries(opened, emit):
        try:
            row = documents.experiment(summary, opened.folder(summary.id))
        except EngineError as error:
            emit(damaged(summary.id, error))
            continue
        if archived or not row["archived"]:
            yield row


def measurements(trial: TrialState, folder: ExperimentFolder, group: str = "") -> list[Document]:
    """Return the measurements of a trial, of one group or of all."""
    from detbuild.store.metrics import measurements as read

    return [documents.measurement(one, folder.id, trial.id) for one in read(folder, trial, group)]


def experiment(home: Path, experiment_id: int) -> tuple[ExperimentState, ExperimentFolder]:
    opened = Home.open(home)
    folder = opened.experiment(experiment_id)
    state = load_cached(opened, folder)
    for warning in journal_warnings(state):
        no_output(warning)
    return state, folder


def trial(home: Path, reference: tuple[int, int]) -> tuple[TrialState, ExperimentFolder]:
    state, folder = experiment(home, reference[0])
    if reference[1] not in state.trials:
        there = ", ".join(map(str, state.trials)) or "none yet"
        raise ConfigError(f"experiment {folder.id} has no trial {reference[1]}", hint=f"its trials: {there}")
    return state.trials[reference[1]], folder
