"""Listings: a table, `--json` for programs, `--csv` for spreadsheets, `-q` for scripts.

`--csv` with several tables: experiments, trials, checkpoints, metrics.
"""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from detbuild.cli.terminal import cut, terminal_width, width
from detbuild.credentials import masked_urls, masked_urls_in
from detbuild.escaping import number, visible
from detbuild.jsontext import json_text, not_finite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import PurePath


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
csv_option = click.option("--csv", "as_csv", is_flag=True, help="Print CSV, for spreadsheets.")
_GAP = "  "
_LEAST = 8  # columns of a terminal that a cell keeps
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NESTED = ("trials", "validations", "checkpoints", "runs", "measurements")


if TYPE_CHECKING:
    Row = Mapping[str, object]
    Columns = Mapping[str, str | Callable[[Row], str]]


def show_json(value: object, *, show_secrets: bool = False) -> None:
    """Print strict JSON; mask credentials in URLs unless secrets are requested."""
    click.echo(json_text(value if show_secrets else masked_urls_in(value)))


def csv_text(rows: Sequence[Row]) -> str:
    """Return rows as CSV under the keys of `--json`; keys inside a map get dotted names.

    Text that a spreadsheet would read as a formula gets a leading apostrophe; controls are escaped.
    """
    flat = [dict(_flat(row)) for row in rows]
    names = list(dict.fromkeys(name for row in flat for name in row))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if names:
        writer.writerow([_safe(name) for name in names])
    writer.writerows([_safe(row.get(name)) for name in names] for row in flat)
    return out.getvalue()


def show_csv(rows: Sequence[Row]) -> None:
    click.echo(csv_text(rows), nl=False)


def _flat(row: Row, prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in row.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _safe(value: object) -> str:
    if value is None or isinstance(value, (bool, int)):
        return "" if value is None else str(value)
    if isinstance(value, float):
        return str(value) if math.isfinite(value) else not_finite(value)
    text = masked_urls(value) if isinstance(value, str) else json_text(masked_urls_in(value), indent=None)
    if text.startswith(_FORMULA):
        text = f"'{text}"
    return "\n".join(visible(line) for line in text.split("\n"))  # it may go to a terminal


def show_table(rows: Sequence[Row], columns: Columns, *, empty: str, spare: Sequence[str] = ()) -> None:
    """Print rows under headings; a column is a key of the row or a function of it.

    On a terminal that is too narrow the columns of `spare` are left out first, then the widest cells are cut.
    """
    if not rows:
        click.echo(empty, err=True)
        return
    lines = [tuple(columns), *(tuple(_cell(row, column) for column in columns.values()) for row in rows)]
    room = terminal_width()
    for name in spare:
        if room is None or _needed(_widths(lines)) <= room:
            break
        at = lines[0].index(name)
        lines = [(*line[:at], *line[at + 1 :]) for line in lines]
    for line in aligned(lines, room):
        click.echo(line)


def state_cell(row: Row) -> str:
    """Return the state of a row as tables show it: in lower case."""
    name = str(row["state"])
    if name.startswith("STOPPING_"):  # all others are their label; loading the states outlasts a listing
        from detbuild.store.state import State

        return State(name).label
    return name.lower().replace("_", " ")


def aligned(lines: Sequence[Sequence[str]], room: int | None) -> Iterator[str]:
    """Yield lines of cells in aligned columns; the widest are cut to fit `room` terminal columns."""
    widths = _widths(lines)
    while room is not None and _needed(widths) > room and max(widths) > _LEAST:
        widths[widths.index(max(widths))] -= 1
    for line in lines:
        cells = (
            cut(cell, most) + " " * (most - width(cell)) for cell, most in zip(line, widths, strict=True)
        )
        yield _GAP.join(cells).rstrip()


def remaining_width(lines: Sequence[Sequence[str]], room: int) -> int:
    """Return the terminal columns that are left to the right of these cells."""
    return max(0, room - _needed(_widths(lines)) - len(_GAP))


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(width(line[at]) for line in lines) for at in range(len(lines[0]))]


def _needed(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _cell(row: Row, column: str | Callable[[Row], str]) -> str:
    value = row[column] if isinstance(column, str) else column(row)
    return "-" if value is None or value == "" else visible(masked_urls(str(value)))


def export(described: Sequence[Row], outdir: PurePath | None) -> None:
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


def tables_of(described: Sequence[Row]) -> Mapping[str, Sequence[Row]]:
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
    from detbuild.progress import metrics_line

    metrics = row["metrics"]
    return metrics_line(metrics) if isinstance(metrics, dict) else ""


def _list(document: Row, key: str) -> list[dict[str, object]]:
    found = document.get(key, [])
    return found if isinstance(found, list) else []


def _plain(document: Row) -> Row:
    return {key: value for key, value in document.items() if key not in _NESTED}
