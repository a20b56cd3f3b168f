"""Reported metrics of trials."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from determined.experimental.client import _host

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


@dataclass(frozen=True)
class TrialMetrics:
    """One report of a trial."""

    trial_id: str  # "experiment/trial", as Trial.id
    trial_run_id: int  # 0 for the first run of the trial, plus 1 for each restart
    steps_completed: int  # batches
    end_time: datetime  # in UTC
    metrics: Mapping[str, object]
    group: str  # "training", "validation", or a name of the script's own
    batch_metrics: None = None  # only averages over the batches between two reports are stored


def iter_trial_metrics(
    trial_ids: Sequence[_host.TrialId], group: str | None = None
) -> Iterator[TrialMetrics]:
    """Yield the metrics that the trials have reported so far, one trial after another, each in order."""
    for numbers in [_host.trial_numbers(one) for one in trial_ids]:
        with _host.found():
            from detbuild.store.metrics import measurements
            from determined.experimental.client._read import journal_state

            folder = _host.home().experiment(numbers[0])
            state = journal_state(folder, numbers[1])
        for one in measurements(folder, state, group or ""):
            yield TrialMetrics(
                trial_id=f"{numbers[0]}/{numbers[1]}",
                trial_run_id=one.run,
                steps_completed=one.steps_completed,
                end_time=datetime.fromtimestamp(one.time, timezone.utc),
                metrics=one.metrics,
                group=one.group,
            )
