"""Listings: a table for people, `--json` for programs, `-q` for scripts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from detbuild.cli.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Row = Mapping[str, object]
    Columns = Mapping[str, str | Callable[[Row], str]]

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def show_json(value: object) -> None:
    """Two spaces, keys in the order given, so that two prints can be compared."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=True, default=str))


def show_table(rows: Sequence[Row], columns: Columns, *, empty: str) -> None:
    """Print rows under headings; a column is a key of the row or a function of it. Cells are never cut."""
    if not rows:
        click.echo(empty, err=True)
        return
    cells = [list(columns), *([_cell(row, column) for column in columns.values()] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    for line in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(row: Row, column: str | Callable[[Row], str]) -> str:
    value = row[column] if isinstance(column, str) else column(row)
    return "-" if value is None or value == "" else visible(str(value))
