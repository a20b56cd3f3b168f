"""The metrics of a trial over all of its runs as tables: nothing twice, and no more rows than asked for.

A long series is thinned as it is read, so memory is bounded by the rows asked for and not by how many there
are. Of each stretch of batches the rows with the lowest and the highest value of each metric stay, so that no
peak is lost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from detbuild.store.progress import limits
from detbuild.store.reader import RecordFile
from detbuild.store.state import run_records
from determined._records import Measured, Training, Validation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from detbuild.store.folder import ExperimentFolder
    from detbuild.store.state import TrialState

_SLACK = 4  # how many times the rows asked for are held before they are thinned


@dataclass(frozen=True, slots=True)
class Row:
    """One report: `steps` in batches, `time` in seconds since the epoch, nested metrics dotted."""

    steps: int
    time: float
    metrics: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """One group of metrics: "training", "validation" or a script's own. Columns are equally long."""

    group: str
    steps: tuple[int, ...]  # batches, ascending
    times: tuple[float, ...]  # seconds since the first report of the trial
    metrics: Mapping[str, tuple[float | None, ...]]  # None where a report has no such metric
    records: int  # how many reports there were before any were left out


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


def tables(folder: ExperimentFolder, trial: TrialState, *, limit: int) -> tuple[Table, ...]:
    """Every group of metrics that a trial reported, of at most about `limit` rows each."""
    groups: dict[str, _Group] = {}
    begun = math.inf
    for group, row in reports(folder, trial):
        begun = min(begun, row.time)
        groups.setdefault(group, _Group(limit)).add(row)
    return tuple(_table(name, group, begun) for name, group in groups.items())


def reports(folder: ExperimentFolder, trial: TrialState) -> Iterator[tuple[str, Row]]:
    """Every report that no later run repeated, in order, with its group."""
    several = len(trial.runs) > 1
    last_own = limits(run_records(folder, trial)) if several else [math.inf] * len(trial.runs)
    for run, limit in zip(trial.runs, last_own, strict=True):
        file = RecordFile(folder.run(trial.id, run.run).events, folder.run(trial.id, run.run).name)
        for line in file.rest() if run.finished else file.new():
            record = line.record
            if isinstance(record, (Training, Validation, Measured)) and record.steps_completed <= limit:
                group = record.group if isinstance(record, Measured) else record.kind
                yield group, Row(record.steps_completed, line.time, dict(_numbers(record.metrics)))


def thinned(rows: Sequence[Row], limit: int) -> list[Row]:
    """At most about `limit` rows: of each stretch those with the lowest and highest value of each metric."""
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


def _table(name: str, group: _Group, begun: float) -> Table:
    rows = sorted(thinned(group.rows, group.limit), key=lambda row: row.steps)
    names = dict.fromkeys(name for row in rows for name in row.metrics)
    return Table(
        group=name,
        steps=tuple(row.steps for row in rows),
        times=tuple(row.time - begun for row in rows),
        metrics={name: tuple(row.metrics.get(name) for row in rows) for name in names},
        records=group.records,
    )


def _numbers(metrics: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            try:
                yield f"{prefix}{name}", float(value)
            except OverflowError:  # an integer beyond what a float holds
                continue
