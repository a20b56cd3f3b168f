"""`--csv` with several tables: experiments, trials, checkpoints, metrics."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from detbuild.cli.table import csv_text, show_table
from detbuild.cli.text import number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import PurePath

    from detbuild.cli.documents import Document
    from detbuild.cli.table import Columns, Row

_NESTED = ("trials", "validations", "checkpoints", "runs", "measurements")


def export(described: Sequence[Document], outdir: PurePath | None) -> None:
    """Print the tables of experiments, or write each into a file of `outdir` and print its name."""
    tables = tables_of(described)
    if outdir is None:
        click.echo("\n".join(csv_text(rows) for rows in tables.values()), nl=False)
        return
    from detbuild.store.files import file_errors

    directory = Path(outdir)
    with file_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        for name, rows in tables.items():
            file = directory / f"{name}.csv"
            file.write_text(csv_text(rows), encoding="utf-8")
            click.echo(file)


def tables_of(described: Sequence[Document]) -> Mapping[str, Sequence[Row]]:
    """Flatten the documents of experiments into tables; metrics only if present."""
    trials = [trial for one in described for trial in _list(one, "trials")]
    tables: dict[str, Sequence[Row]] = {
        "experiments": [_plain(one) for one in described],
        "trials": [_plain(one) for one in trials],
        "checkpoints": [one for trial in trials for one in _list(trial, "checkpoints")],
    }
    if any("measurements" in trial for trial in trials):
        tables["metrics"] = [one for trial in trials for one in _list(trial, "measurements")]
    return tables


def metrics_table(rows: Sequence[Row]) -> None:
    """Print all measurements of a trial as a table."""
    columns: Columns = {
        "TRIAL": lambda row: f"{row['experiment_id']}/{row['trial_id']}",
        "GROUP": "group",
        "BATCH": "steps_completed",
        "METRICS": _metrics,
    }
    show_table(rows, columns, empty="no measurements yet")


def summary_table(summary: Mapping[str, Mapping[str, Mapping[str, object]]]) -> None:
    """Print the summary of each metric of a trial as a table."""
    rows = [
        {"group": group, "name": name, **figures}
        for group, metrics in summary.items()
        for name, figures in metrics.items()
    ]
    keys = ("group", "name", "count", "last", "min", "max", "mean")
    shown = [{key: number(row[key]) if key in row else "" for key in keys} for row in rows]
    show_table(shown, {key.upper(): key for key in keys}, empty="no measurements yet")


def _metrics(row: Row) -> str:
    from detbuild.cli.show import metrics_line

    metrics = row["metrics"]
    return metrics_line(metrics) if isinstance(metrics, dict) else ""


def _list(document: Row, key: str) -> list[Document]:
    found = document.get(key, [])
    return found if isinstance(found, list) else []


def _plain(document: Row) -> Row:
    return {key: value for key, value in document.items() if key not in _NESTED}
