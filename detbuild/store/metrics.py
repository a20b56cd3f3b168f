"""The metrics of a trial over all of its runs as tables, downsampled to a number of rows.

A long series is downsampled while it is read, so that memory depends only on the requested rows. In each
interval of batches the rows with the minimum and the maximum of each metric stay, so that no peak is lost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Final, NamedTuple

from detbuild.store.records import RecordFile, read_run
from detbuild.store.state import limits, run_records
from determined._contract.records import Measured, Training, Validation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.records import RunRecords
    from detbuild.store.state import TrialState
    from determined._contract.records import Line, Record

_SLACK = 4  # multiple of the requested rows that is held before downsampling
_REPORTS: Final = (Training, Validation, Measured)


class Row(NamedTuple):
    """One report: `steps` in batches, `time` in seconds since the epoch, nested metrics as dotted names."""

    steps: int
    time: float
    metrics: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """One group of metrics: "training", "validation" or a custom one. All columns have the same length."""

    group: str
    steps: tuple[int, ...]  # batches, ascending
    times: tuple[float, ...]  # seconds since the first report of the trial
    metrics: Mapping[str, tuple[float | None, ...]]  # None if a report does not have the metric
    records: int  # number of reports before downsampling


@dataclass
class _Group:
    limit: int
    rows: list[Row] = field(default_factory=list)
    records: int = 0

    def add(self, row: Row) -> None:
        self.rows.append(row)
        self.records += 1
        if len(self.rows) > _SLACK * self.limit:
            self.rows = thinned(self.rows, self.limit)


@dataclass
class _Run:
    """The reports of one run up to a batch."""

    limit: int  # of rows
    upto: float = math.inf
    last: int = 0  # batch
    begun: float = math.inf
    groups: dict[str, _Group] = field(default_factory=dict)

    def along(self, lines: Iterable[Line]) -> Iterator[Line]:
        for line in lines:
            record = line.record
            if isinstance(record, _REPORTS):
                steps = record.steps_completed
                self.last = max(self.last, steps)
                if steps <= self.upto:
                    self._take(_group_of(record), Row(steps, line.time, _numbers(record.metrics)))
            yield line

    def _take(self, name: str, row: Row) -> None:
        group = self.groups.get(name)
        if group is None:
            group = self.groups[name] = _Group(self.limit)
        self.begun = min(self.begun, row.time)
        group.add(row)


def tables(
    folder: ExperimentFolder, trial: TrialState, *, limit: int
) -> tuple[tuple[RunRecords, ...], tuple[Table, ...]]:
    """Read the records of the runs of a trial, and each group of metrics as a table, in one pass.

    Args:
        limit: Approximate number of rows to keep of each group.
    """
    runs = [_Run(limit) for _ in trial.runs]
    records = tuple(_read(folder, trial, at, run) for at, run in enumerate(runs))
    for at, upto in enumerate(limits(records)):
        if runs[at].last > upto:  # a later run repeated some of it
            runs[at] = _Run(limit, upto)
            _read(folder, trial, at, runs[at])
    names = dict.fromkeys(name for run in runs for name in run.groups)
    begun = min((run.begun for run in runs), default=math.inf)
    return records, tuple(
        _table(name, [run.groups[name] for run in runs if name in run.groups], begun) for name in names
    )


def _read(folder: ExperimentFolder, trial: TrialState, at: int, run: _Run) -> RunRecords:
    state = trial.runs[at]
    return read_run(folder.run(trial.id, state.run), over=state.finished is not None, along=run.along)


def reports(folder: ExperimentFolder, trial: TrialState) -> Iterator[tuple[str, Row]]:
    """Yield all reports with their group, in order, except those that a later run repeated."""
    for one in measurements(folder, trial):
        yield one.group, Row(one.steps_completed, one.time, _numbers(one.metrics))


def thinned(rows: Sequence[Row], limit: int) -> list[Row]:
    """Downsample to about `limit` rows: per interval those with the minimum and maximum of each metric."""
    if len(rows) <= limit:
        return list(rows)
    names = {name for row in rows for name in row.metrics}
    stretches = max(1, limit // max(1, 2 * len(names)))
    first, last = min(row.steps for row in rows), max(row.steps for row in rows)
    width = max(1.0, (last - first + 1) / stretches)
    kept: set[int] = {0, len(rows) - 1}
    extremes: dict[tuple[int, str], list[int]] = {}
    for number, row in enumerate(rows):
        stretch = int((row.steps - first) / width)
        for name, value in row.metrics.items():
            if value == value:  # noqa: PLR0124  (not NaN)
                found = extremes.setdefault((stretch, name), [number, number])
                if value < rows[found[0]].metrics[name]:
                    found[0] = number
                if value > rows[found[1]].metrics[name]:
                    found[1] = number
    kept.update(number for found in extremes.values() for number in found)
    return [rows[number] for number in sorted(kept)]


def _table(name: str, groups: Sequence[_Group], begun: float) -> Table:
    found = sorted((row for group in groups for row in group.rows), key=itemgetter(0))
    rows = thinned(found, groups[0].limit)
    names = dict.fromkeys(name for row in rows for name in row.metrics)
    return Table(
        group=name,
        steps=tuple([row.steps for row in rows]),
        times=tuple([row.time - begun for row in rows]),
        metrics={name: tuple([row.metrics.get(name) for row in rows]) for name in names},
        records=sum(group.records for group in groups),
    )


def _numbers(metrics: Mapping[str, object]) -> Mapping[str, float]:
    for value in metrics.values():
        if value.__class__ is not float:
            return dict(_flat(metrics))
    return metrics  # type: ignore[return-value]  # the usual case; a copy would cost more than reading


def _flat(metrics: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            try:
                yield f"{prefix}{name}", float(value)
            except OverflowError:  # an integer beyond what a float holds
                continue


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
            record, found = line.record, _group_of(line.record)
            if (
                not isinstance(record, _REPORTS)
                or record.steps_completed > limit
                or (group or found) != found
            ):
                continue
            yield Measurement(
                run=state.run,
                group=found,
                steps_completed=record.steps_completed,
                time=line.time,
                metrics=record.metrics,
            )


def _group_of(record: Record) -> str:
    """Return the metric group of a record; "" if it has no metrics."""
    if isinstance(record, Measured):
        return record.group
    return record.kind if isinstance(record, _REPORTS) else ""


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
