"""Connects search method and journal: sends each event once, and journals the decisions.

It translates what the runs of a trial reported to the terms of the search.
"""

from __future__ import annotations

import math
from itertools import count, takewhile
from typing import TYPE_CHECKING, Final

from detbuild.controller.retry import end_of, failures
from detbuild.errors import SearchError
from detbuild.runtime.plan import RunRequest
from detbuild.search.method import Began, Create, TrialEnded, Validated, from_json, to_json
from detbuild.search.registry import time_metric
from detbuild.store import journal
from detbuild.store.records import read_run
from detbuild.store.state import State, run_records, trial_progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.controller.state import JournaledState
    from detbuild.search.method import Action, SearchEvent, SearchMethod
    from detbuild.store.state import TrialState
    from determined._contract.records import Validation
    from determined._contract.run_info import Length

_MAYBE_WHOLE: Final = frozenset({"COMPLETED", "ERROR"})  # a run that starts from one verifies it


class Search:
    """The search of one experiment.

    Raises:
        SearchError: The method decides differently from the journal.
    """

    def __init__(self, journaled: JournaledState, method: SearchMethod, config: ExperimentConfig) -> None:
        self._journaled = journaled
        self._method = method
        self._config = config
        header = journaled.state.header
        self._goal = header.goal
        self._unwritten: journal.Searched | None = None  # decided, but not journaled yet: disk full
        for entry in journaled.folder.entries():
            if isinstance(entry.fact, journal.Searched):
                method.replay(*_as_values(entry.fact))

    @property
    def needs_every_validation(self) -> bool:
        return self._method.needs_every_validation

    def step(self) -> None:
        """Send the method the start of the search and the ends of trials.

        Raises:
            DiskFullError: No free space to journal its decisions.
        """
        state = self._journaled.state
        self._write()
        if not state.began and not state.stop:
            self._send(Began())
        for trial_id in tuple(state.unreported):
            trial = state.trials[trial_id]
            # A trial canceled with the whole experiment is continued with it.
            if not (state.ending and trial.state == State.CANCELED and not trial.stop):
                self._send(TrialEnded(trial_id=trial_id, reason=end_of(trial)))
                state.forget(trial_id)

    def on_validation(self, trial_id: int, validation: Validation) -> None:
        """Send a validation to a search that receives them, once for each length of training."""
        trial = self._journaled.state.trials[trial_id]
        if (
            not self.needs_every_validation
            or trial.released
            or trial.stop
            or validation.steps_completed <= trial.steps_reported
        ):
            return
        try:
            time = _time_of(validation, trial, self._config)
        except SearchError as error:
            self._fail(error)
            return
        event = Validated(trial_id=trial_id, time=time, metric=self._goal.value(validation))
        self._send(event, steps_completed=validation.steps_completed)

    def segment_done(self, trial_id: int) -> None:
        """Report the result of a segment to the search."""
        trial = self._journaled.state.trials[trial_id]
        progress = trial_progress(run_records(self._journaled.folder, trial), self._goal)
        newest = progress.validations[-1] if progress.validations else None
        self._send(
            Validated(
                trial_id=trial_id,
                time=_total_of(trial.length, progress.steps_completed),
                metric=self._goal.value(newest) if newest else None,
            )
        )

    def stalled(self) -> None:
        """Fail the search if no trial runs or will run, instead of waiting forever."""
        name = self._config.searcher.name
        self._fail(SearchError(f"the search method {name} neither continues nor ends"))

    def _send(self, event: SearchEvent, *, steps_completed: int = -1) -> None:
        self._write()
        if self._journaled.state.failure:
            return
        try:
            actions = self._method.decide(event)
        except SearchError as error:
            self._fail(error)
            return
        self._unwritten = journal.Searched(
            event=to_json(event),
            actions=tuple(map(to_json, actions)),
            steps_completed=steps_completed,
            progress=self._method.progress,
            share=self._method.share,
            sources=self._sources(actions),
        )
        self._write()

    def _write(self) -> None:
        """Journal the last decision; the method decides nothing more before that."""
        if self._unwritten is not None:
            self._journaled.record(self._unwritten)
            self._unwritten = None

    def _sources(self, actions: Sequence[Action]) -> dict[str, Sequence[str]]:
        """Return the checkpoints that each new trial starts from, as they exist now."""
        return {
            str(action.trial_id): _newest_checkpoints(self._journaled, action.parent)
            for action in actions
            if isinstance(action, Create) and action.parent is not None
        }

    def _fail(self, error: SearchError) -> None:
        if not self._journaled.state.failure:
            self._journaled.record(
                journal.SearchFailed(why=f"{error}; {error.hint}" if error.hint else str(error))
            )


def _as_values(fact: journal.Searched) -> tuple[SearchEvent, Sequence[Action]]:
    event = from_json(fact.event)
    actions = [from_json(raw) for raw in fact.actions]
    return event, actions  # type: ignore[return-value]  # written by this class


def _total_of(length: Length | None, steps_completed: int) -> float:
    """Return the length of a segment; without one, the number of batches trained."""
    return float(length.count if length is not None else steps_completed)


def _time_of(validation: Validation, trial: TrialState, config: ExperimentConfig) -> float:
    """Return how long a trial had trained, in the unit of its search.

    The unit is a metric of the validation (the Trial APIs report `batches` and `epochs`), or counted batches
    or records.

    Raises:
        SearchError: The validation has no such metric.
    """
    unit = time_metric(config)
    given = validation.metrics.get(unit)
    if isinstance(given, (int, float)) and not isinstance(given, bool) and math.isfinite(given):
        return float(given)
    if unit == "batches":
        return float(validation.steps_completed)
    batch_size = trial.hparams.get("global_batch_size")
    if unit == "records" and isinstance(batch_size, int):
        return float(validation.steps_completed * batch_size)
    raise SearchError(
        f"trial {trial.id} validated without the metric {unit}, the time metric of the search",
        hint=f"report {unit} as a number in every validation",
    )


def run_request(journaled: JournaledState, trial: TrialState, run: int) -> RunRequest:
    """Return the request for a trial's next run: from its newest checkpoint to the end of its segment."""
    header = journaled.state.header
    goal = header.goal
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


def _newest_checkpoints(journaled: JournaledState, trial_id: int) -> tuple[str, ...]:
    """Return a trial's checkpoints, newest first, without deleted, damaged and foreign ones."""
    folder, stored = journaled.folder, journaled.state.stored
    runs = takewhile(lambda run: run.exists, (folder.run(trial_id, number) for number in count()))
    records = [read_run(run, over=True) for run in runs]
    unusable = (
        stored.deleted | stored.foreign.keys() | {each.uuid for run in records for each in run.rejected}
    )
    uuids = [each.uuid for run in records for each in run.checkpoints]
    return tuple(uuid for uuid in reversed(uuids) if uuid not in unusable)
