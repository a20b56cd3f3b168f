"""Streams all metrics that a trial reported, in order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from detbuild.store.progress import limits
from detbuild.store.reader import RecordFile
from detbuild.store.state import run_records
from determined._records import Measured, Training, Validation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from detbuild.store.folder import ExperimentFolder
    from detbuild.store.state import TrialState
    from determined._records import Record

REPORTS: Final = (Training, Validation, Measured)


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """One report of a run."""

    run: int
    group: str  # "training", "validation" or a group that the script has named
    steps_completed: int
    time: float  # seconds since the epoch
    metrics: Mapping[str, object]


def measurements(folder: ExperimentFolder, trial: TrialState, group: str = "") -> Iterator[Measurement]:
    """Yield the reports of all runs of the trial, of one group or of all.

    Reports of batches that a later run repeated are skipped.
    """
    last_own = limits(run_records(folder, trial)) if len(trial.runs) > 1 else [math.inf] * len(trial.runs)
    for state, limit in zip(trial.runs, last_own, strict=True):
        file = RecordFile(folder.run(trial.id, state.run))
        for line in file.rest() if state.finished else file.new():
            record, found = line.record, group_of(line.record)
            if not isinstance(record, REPORTS) or record.steps_completed > limit or (group or found) != found:
                continue
            yield Measurement(
                run=state.run,
                group=found,
                steps_completed=record.steps_completed,
                time=line.time,
                metrics=record.metrics,
            )


def group_of(record: Record) -> str:
    """Return the metric group of a record; "" if it has no metrics."""
    if isinstance(record, Measured):
        return record.group
    return record.kind if isinstance(record, REPORTS) else ""


class _Summary:
    """Statistics of one metric; for values that are not numbers only the count and the last one."""

    def __init__(self) -> None:
        self.count = 0
        self.last: object = None
        self.numbers: tuple[float, float, float] | None = None  # min, max, sum

    def take(self, value: object) -> None:
        self.count += 1
        self.last = value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.numbers = None
        elif self.count == 1:
            self.numbers = (value, value, value)
        elif self.numbers is not None:
            low, high, total = self.numbers
            self.numbers = (min(low, value), max(high, value), total + value)

    def document(self) -> dict[str, object]:
        if self.numbers is None:
            return {"count": self.count, "last": self.last, "type": type(self.last).__name__}
        low, high, total = self.numbers
        mean = total / self.count
        found = {"last": self.last, "min": low, "max": high, "sum": total, "mean": mean}
        return {"count": self.count, **found, "type": "number"}


def summary(measured: Iterable[Measurement]) -> dict[str, dict[str, dict[str, object]]]:
    """Summarize each metric by group: count, last, and for numbers also min, max, sum and mean."""
    groups: dict[str, dict[str, _Summary]] = {}
    for one in measured:
        metrics = groups.setdefault(one.group, {})
        for name, value in one.metrics.items():
            metrics.setdefault(name, _Summary()).take(value)
    return {
        group: {name: found.document() for name, found in metrics.items()}
        for group, metrics in groups.items()
    }
