"""`Trial`: one trial of an experiment, its metrics, logs and checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from detbuild.api.logs import Level, LineRange, LogFilter
from detbuild.sdk import host
from detbuild.sdk.checkpoint import (
    Checkpoint,
    SortBy,
    TrialMetrics,
    checkpoints_in,
    iter_trial_metrics,
    ordered,
)
from detbuild.sdk.enums import LogLevel, OrderBy, TrialSortBy, TrialState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from detbuild.api import experiment, trial

_SUMMARY_NAMES = {"training": "avg_metrics", "validation": "validation_metrics"}


class Trial:
    """A trial, from `client.get_trial(id)` or the methods of an experiment.

    Trials are numbered from 1 in each experiment, without global numbers. So `id` is a text,
    "experiment/trial", e.g. "3/2", which `get_trial` and the command line accept.

    Attributes:
        id: "experiment/trial".
        experiment_id: ID of its experiment.
        number: Number of the trial in its experiment, in a run also in `DET_TRIAL_ID`.
        hparams: Its hyperparameters.
        state: Its state; updated by `reload`.
        progress: 0 to 1; None if unknown.
    """

    def __init__(self, trial_id: host.TrialId, session: object = None) -> None:  # noqa: ARG002  (no server)
        self.experiment_id, self.number = host.trial_numbers(trial_id)
        self.reload()

    @classmethod
    def of(cls, found: trial.Trial) -> Trial:
        """Return the trial that was read already."""
        own = cls.__new__(cls)
        own.experiment_id, own.number = found.experiment_id, found.id
        own._take(found)  # noqa: SLF001  (its own)
        return own

    @property
    def id(self) -> str:
        return f"{self.experiment_id}/{self.number}"

    def reload(self) -> None:
        """Read everything that changes again."""
        with host.found():
            self._take(host.client().trial(self.experiment_id, self.number))

    def _take(self, found: trial.Trial) -> None:
        self._trial, state = found, found.state
        self.hparams: dict[str, Any] = dict(state.hparams)
        self.state = TrialState(f"STATE_{state.state}")
        self.progress: float | None = state.progress.fraction
        self._summary: Mapping[str, Any] | None = None

    @property
    def summary_metrics(self) -> Mapping[str, Any]:
        """Summaries by group ("avg_metrics" for training, "validation_metrics" for validation) and metric.

        Each has "count", "last" and "type", and for numbers also "min", "max", "sum" and "mean".
        """
        if self._summary is None:
            found = self._trial.summary()
            self._summary = {_SUMMARY_NAMES.get(name, name): metrics for name, metrics in found.items()}
        return self._summary

    def iter_logs(
        self,
        follow: bool = False,
        *,
        head: int | None = None,
        tail: int | None = None,
        container_ids: Sequence[str] | None = None,
        rank_ids: Sequence[int] | None = None,
        stdtypes: Sequence[str] | None = None,
        min_level: LogLevel | None = None,
        timestamp_before: datetime | float | None = None,
        timestamp_after: datetime | float | None = None,
    ) -> Iterator[str]:
        """Yield its log lines, each with its newline.

        Args:
            follow: Follow until the trial ends; excludes `head` and `tail`.
            head: Number of first lines to yield; excludes `tail`.
            tail: Number of last lines to yield.
            container_ids: Only lines of these containers, by ID or its prefix.
            rank_ids: Only lines of these ranks; a line without a rank is rank 0's.
            stdtypes: "stdout", "stderr" or both.
            min_level: Only lines at or above this level, which is the first word of a line.
            timestamp_before: Only runs started before: log lines are not timestamped.
            timestamp_after: Only runs that ended later.

        Raises:
            ValueError: The arguments exclude each other.
        """
        if sum((follow, head is not None, tail is not None)) > 1:
            raise ValueError("follow, head and tail exclude each other")
        if (head or 0) < 0 or (tail or 0) < 0:
            raise ValueError("head and tail may not be negative")
        selected = LogFilter(
            stdtypes=tuple(stdtypes) if stdtypes else LogFilter().stdtypes,
            ranks=tuple(rank_ids or ()),
            containers=tuple(container_ids or ()),
            min_level=Level[min_level.value] if min_level else None,
            before=_seconds(timestamp_before),
            after=_seconds(timestamp_after),
        )
        lines = self._trial.logs().lines(selected, LineRange(follow=follow, head=head, tail=tail))
        yield from (f"{line.message}\n" for line in lines)

    logs = iter_logs  # Determined's older name

    def iter_metrics(self, group: str | None = None) -> Iterator[TrialMetrics]:
        """Yield the metrics reported so far, of one group ("training", "validation", ...) or of all."""
        return iter_trial_metrics([self.id], group)

    def stream_metrics(self, group: str) -> Iterator[TrialMetrics]:
        """The same under Determined's older name."""
        return self.iter_metrics(group)

    def list_checkpoints(
        self,
        sort_by: SortBy = None,
        order_by: OrderBy | None = None,
        max_results: int | None = None,
    ) -> list[Checkpoint]:
        """Return its checkpoints, the best by the searcher's metric first.

        Args:
            sort_by: A field, or the name of a validation metric; goes with `order_by`.
            order_by: Ascending or descending.
            max_results: Maximum number.
        """
        return ordered(checkpoints_in(self._trial), sort_by, order_by, max_results)

    def get_checkpoints(self, sort_by: SortBy = None, order_by: OrderBy | None = None) -> list[Checkpoint]:
        """The same under Determined's older name."""
        return self.list_checkpoints(sort_by, order_by)

    def top_checkpoint(self, sort_by: str | None = None, smaller_is_better: bool | None = None) -> Checkpoint:
        """Return the best checkpoint by a validation metric, by default the searcher's.

        Raises:
            ValueError: No checkpoint has that metric.
        """
        return self.select_checkpoint(best=True, sort_by=sort_by, smaller_is_better=smaller_is_better)

    def select_checkpoint(
        self,
        latest: bool = False,
        best: bool = False,
        uuid: str | None = None,
        sort_by: str | None = None,
        smaller_is_better: bool | None = None,
    ) -> Checkpoint:
        """Return one checkpoint: the newest, the best, or one by its UUID or a unique prefix.

        Args:
            latest: Return the newest.
            best: Return the best by the metric `sort_by`, or by the searcher's.
            uuid: Return this one.
            sort_by: Name of a validation metric; goes with `smaller_is_better`.
            smaller_is_better: Direction of the metric.

        Raises:
            ValueError: The checkpoint does not exist, or the arguments exclude each other.
        """
        if sum((latest, best, uuid is not None)) != 1:
            raise ValueError("pass exactly one of latest, best and uuid")
        if (sort_by is None) != (smaller_is_better is None):
            raise ValueError("sort_by and smaller_is_better go together")
        if sort_by is not None and not best:
            raise ValueError("sort_by goes with best=True alone")
        found = self._selected(best=best, uuid=uuid, sort_by=sort_by, smaller_is_better=smaller_is_better)
        if not found or (uuid and len(found) > 1):
            what = f"{'several checkpoints' if found else 'no such checkpoint'}"
            raise ValueError(f"trial {self.id} has {what}; see its list_checkpoints()")
        return found[0]

    def _selected(
        self, *, best: bool, uuid: str | None, sort_by: str | None, smaller_is_better: bool | None
    ) -> list[Checkpoint]:
        with host.explained():
            if best:
                own = self._trial.best_checkpoints(sort_by, smaller_is_better=smaller_is_better)
            elif uuid is not None:
                own = [one for one in self._trial.checkpoints() if uuid and one.uuid.startswith(uuid)]
            else:
                own = [one for one in self._trial.checkpoints() if one.found.state == "COMPLETED"]
        return [Checkpoint(one) for one in own]

    def kill(self) -> None:
        """Stop it at once; training since its last checkpoint is lost."""
        with host.explained():
            host.client().experiment(self.experiment_id).kill_trial(self.number)

    def __repr__(self) -> str:
        return f"Trial(id={self.id!r})"


def trials_in(found: experiment.Experiment, sort_by: TrialSortBy, order_by: OrderBy) -> list[Trial]:
    """Return the trials of an experiment; those without a value to sort by come last."""
    with host.explained():
        trials = [Trial.of(found.trial_of(state)) for state in found.state().trials.values()]
    keyed = [(trial, _field(trial, sort_by)) for trial in trials]
    known = sorted(
        ((trial, key) for trial, key in keyed if key is not None),
        key=lambda pair: pair[1],
        reverse=order_by is OrderBy.DESC,
    )
    return [trial for trial, _ in known] + [trial for trial, key in keyed if key is None]


def _field(trial: Trial, sort_by: TrialSortBy) -> Any:  # of one kind for each `sort_by`
    state = trial._trial.state  # noqa: SLF001  (of this module)
    begun = next((run.started for run in state.runs if run.started is not None), None)
    ended = state.runs[-1].ended if state.runs and state.ended else None
    if sort_by in {TrialSortBy.BEST_VALIDATION_METRIC, TrialSortBy.LATEST_VALIDATION_METRIC}:
        return _validation(trial, newest=sort_by is TrialSortBy.LATEST_VALIDATION_METRIC)
    values = {
        TrialSortBy.START_TIME: begun,
        TrialSortBy.END_TIME: ended,
        TrialSortBy.DURATION: None if begun is None or ended is None else ended - begun,
        TrialSortBy.STATE: state.state,
        TrialSortBy.BATCHES_PROCESSED: state.progress.steps_completed,
        TrialSortBy.RESTARTS: state.restarts,
    }
    return values.get(sort_by, trial.number)


def _validation(trial: Trial, *, newest: bool) -> float | None:
    header, progress = trial._trial.header(), trial._trial.state.progress  # noqa: SLF001
    found = (progress.validations[-1] if progress.validations else None) if newest else progress.best
    return header.goal.value(found) if found else None


def _seconds(moment: datetime | float | None) -> float | None:
    return moment if moment is None or isinstance(moment, (int, float)) else moment.timestamp()
