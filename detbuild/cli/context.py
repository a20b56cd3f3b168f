"""`detbuild context`: what of a directory goes into the image, and which rule keeps the rest out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from detbuild.cli.arguments import include_option
from detbuild.cli.group import Command
from detbuild.cli.session import Session, pass_session
from detbuild.cli.table import json_option, show_json
from detbuild.cli.text import size, visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from detbuild.context.listing import Kept, LeftOut, Listing


@click.command(cls=Command)
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@include_option
@json_option
@pass_session
def context(session: Session, *, directory: Path, includes: tuple[Path, ...], as_json: bool) -> None:
    """Show what of a directory goes into the image, and why the rest does not.

    No file is opened. With --json: {"files", "size", "kept": [{"path", "kind", "size"}],
    "left_out": [{"path", "rule", "where"}], "warnings": [{"message", "mend"}]}.
    """
    from detbuild.cli.views import no_output
    from detbuild.context.walk import listing

    home = session.environ.get("HOME")
    found = listing(directory, includes, home=Path(home) if home else None)
    if as_json:
        show_json(document(found))
        return
    for warning in found.warnings:
        no_output(warning)
    for line in lines(found):
        click.echo(line)


def document(found: Listing) -> dict[str, object]:
    """A listing as `--json` shows it."""
    return {
        "files": found.files,
        "size": found.size,
        "kept": [entry._asdict() for entry in found.kept],
        "left_out": [entry._asdict() for entry in found.left_out],
        "warnings": [{"message": warning.message, "mend": warning.mend} for warning in found.warnings],
    }


def lines(found: Listing) -> Iterator[str]:
    """What goes in, what stays out and why, and a sum."""
    yield from map(_kept, found.kept)
    yield from map(_left_out, found.left_out)
    yield f"{found.files} files, {size(found.size)} go in; {len(found.left_out)} paths stay out"


def _kept(entry: Kept) -> str:
    what = size(entry.size) if entry.kind == "file" else entry.kind
    return f"{what:>9}  {visible(entry.path)}"


def _left_out(entry: LeftOut) -> str:
    why = f"`{visible(entry.rule)}`, {visible(entry.where)}" if entry.rule else visible(entry.where)
    return f"{'out':>9}  {visible(entry.path)}  ({why})"
