"""Connects search method and journal: sends each event once, and journals the decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detbuild.controller.reported import newest_checkpoints, time_of, total_of
from detbuild.errors import SearchError
from detbuild.launch.restart import end_of
from detbuild.search.method import Began, Create, TrialEnded, Validated, from_json, to_json
from detbuild.store import journal
from detbuild.store.state import Goal, State, run_records, trial_progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.controller.book import JournaledState
    from detbuild.search.method import Action, SearchEvent, SearchMethod
    from determined._records import Validation


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
        self._goal = Goal(header.metric, header.smaller_is_better)
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
            time = time_of(validation, trial, self._config)
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
                time=total_of(trial.length, progress.steps_completed),
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
            str(action.trial_id): newest_checkpoints(self._journaled, action.parent)
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
