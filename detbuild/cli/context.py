"""`detbuild context`: which files go into the image, and which rule excludes the others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from detbuild.cli.arguments import include_option
from detbuild.cli.group import Command
from detbuild.cli.session import Session, pass_session
from detbuild.cli.table import json_option, show_json
from detbuild.cli.text import visible
from detbuild.units import counted, size

_MOST_LISTED = 50  # paths; above it only the largest files are listed
_FEW = 10

if TYPE_CHECKING:
    from collections.abc import Iterator

    from detbuild.context.walk import Kept, LeftOut, Listing


@click.command(cls=Command)
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@include_option
@click.option("--all", "everything", is_flag=True, help="List every path.")
@json_option
@pass_session
def context(
    session: Session, *, directory: Path, includes: tuple[Path, ...], everything: bool, as_json: bool
) -> None:
    """Show which files go into the image, and why others do not.

    Of many paths only the largest are listed; --all and --json list all. No file is opened.
    With --json: {"files", "size", "kept": [{"path", "kind", "size"}],
    "left_out": [{"path", "rule", "where"}], "warnings": [{"message", "hint"}]}.
    """
    from detbuild.cli.views import no_output
    from detbuild.context.walk import listing

    home = session.environ.get("HOME")
    found = listing(directory, includes, home=Path(home) if home else None, emit=no_output)
    if as_json:
        show_json(document(found))
        return
    for warning in found.warnings:
        no_output(warning)
    for line in lines(found, everything=everything):
        click.echo(line)


def document(found: Listing) -> dict[str, object]:
    """Return a listing as `--json` prints it."""
    return {
        "files": found.files,
        "size": found.size,
        "kept": [entry._asdict() for entry in found.kept],
        "left_out": [entry._asdict() for entry in found.left_out],
        "warnings": [{"message": warning.message, "hint": warning.hint} for warning in found.warnings],
    }


def lines(found: Listing, *, everything: bool = False) -> Iterator[str]:
    """Yield included and excluded paths and totals; of many paths only the largest files."""
    total = f"{counted(found.files, 'file')}, {size(found.size)}"
    out = counted(len(found.left_out), "path")
    if everything or len(found.kept) + len(found.left_out) <= _MOST_LISTED:
        yield from map(_kept, found.kept)
        yield from map(_left_out, found.left_out)
        yield f"in the image: {total}; left out: {out}"
        return
    yield f"in the image: {total}; the largest:"
    yield from (f"{size(bytes_):>9}  {visible(path)}" for path, bytes_ in found.largest)
    yield f"left out: {out}"
    yield from map(_left_out, found.left_out[:_FEW])
    if len(found.left_out) > _FEW:
        yield f"{'':>9}  ... and {len(found.left_out) - _FEW:,} more"
    yield "`detbuild context DIR --all` lists every path; lines in .detignore exclude paths"


def _kept(entry: Kept) -> str:
    what = size(entry.size) if entry.kind == "file" else entry.kind
    return f"{what:>9}  {visible(entry.path)}"


def _left_out(entry: LeftOut) -> str:
    why = f"`{visible(entry.rule)}`, {visible(entry.where)}" if entry.rule else visible(entry.where)
    return f"{'out':>9}  {visible(entry.path)}  ({why})"
