"""What the runs of a trial reported, in terms of the search."""

from __future__ import annotations

import math
from itertools import count, takewhile
from typing import TYPE_CHECKING, Final

from detbuild.errors import SearchError
from detbuild.launch.plan import RunRequest
from detbuild.launch.restart import failures
from detbuild.search.registry import time_metric
from detbuild.store.records import read_run
from detbuild.store.state import Goal, run_records, trial_progress

if TYPE_CHECKING:
    from detbuild.config.experiment import ExperimentConfig
    from detbuild.controller.book import JournaledState
    from detbuild.store.state import TrialState
    from determined._records import Validation
    from determined._run_info import Length

_MAYBE_WHOLE: Final = frozenset({"COMPLETED", "ERROR"})  # a run that starts from one verifies it


def total_of(length: Length | None, steps_completed: int) -> float:
    """Return the length of a segment; without one, the number of batches trained."""
    return float(length.count if length is not None else steps_completed)


def time_of(validation: Validation, trial: TrialState, config: ExperimentConfig) -> float:
    """Return how long a trial had trained, in the unit of its search.

    The unit is a metric of the validation (the Trial APIs report `batches` and `epochs`), or counted batches
    or records.

    Raises:
        SearchError: The validation has no such metric.
    """
    wanted = time_metric(config)
    given = validation.metrics.get(wanted)
    if isinstance(given, (int, float)) and not isinstance(given, bool) and math.isfinite(given):
        return float(given)
    if wanted == "batches":
        return float(validation.steps_completed)
    batch_size = trial.hparams.get("global_batch_size")
    if wanted == "records" and isinstance(batch_size, int):
        return float(validation.steps_completed * batch_size)
    raise SearchError(
        f"trial {trial.id} validated without the metric {wanted}, the time metric of the search",
        hint=f"report {wanted} as a number in every validation",
    )


def run_request(journaled: JournaledState, trial: TrialState, run: int) -> RunRequest:
    """Return the request for a trial's next run: from its newest checkpoint to the end of its segment."""
    header = journaled.state.header
    goal = Goal(header.metric, smaller_is_better=header.smaller_is_better)
    progress = trial_progress(run_records(journaled.folder, trial), goal, journaled.state.stored)
    failed = failures(trial)
    last = failed[-1].failure if failed else ""
    alike = takewhile(lambda one: one.failure == last, reversed(failed))
    return RunRequest(
        trial_id=trial.id,
        run=run,
        trial_seed=trial.seed,
        hparams=trial.hparams,
        length=trial.length,
        milestones=trial.milestones,
        source=trial.source,
        checkpoints=tuple(
            one.uuid for one in progress.checkpoints if one.state in _MAYBE_WHOLE and not one.foreign
        ),
        best_validation=goal.value(progress.best) if progress.best else None,
        last_failure=last,
        failed_alike=sum(1 for _ in alike) if last else 0,
    )


def newest_checkpoints(journaled: JournaledState, trial_id: int) -> tuple[str, ...]:
    """Return a trial's checkpoints, newest first, without deleted, damaged and foreign ones."""
    folder, stored = journaled.folder, journaled.state.stored
    runs = takewhile(lambda run: run.exists, (folder.run(trial_id, number) for number in count()))
    records = [read_run(run, over=True) for run in runs]
    gone = stored.deleted | stored.foreign.keys() | {each.uuid for run in records for each in run.rejected}
    uuids = [each.uuid for run in records for each in run.checkpoints]
    return tuple(uuid for uuid in reversed(uuids) if uuid not in gone)
