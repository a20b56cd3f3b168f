"""`detbuild report`: a self-contained HTML report."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from detbuild.cli.arguments import complete_ids
from detbuild.cli.group import Command
from detbuild.cli.session import Session, pass_session


@click.command(cls=Command)
@click.argument(
    "experiment_ids",
    metavar="ID...",
    nargs=-1,
    required=True,
    type=click.IntRange(min=1),
    shell_complete=complete_ids,
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, allow_dash=True),
    default="report.html",
    show_default=True,
    help="Output file; - is stdout.",
)
@click.option(
    "--points",
    type=click.IntRange(min=10),
    default=1_000,
    show_default=True,
    help="Maximum points of a curve; longer ones are downsampled, peaks stay.",
)
@pass_session
def report(session: Session, /, *, experiment_ids: tuple[int, ...], output: Path, points: int) -> None:
    """Write a self-contained HTML report: curves, hyperparameters, trials, logs, config.

    The page is a single file that opens without a network and may be mailed. It has no secrets, values of
    environment variables, data or host paths; known secret values are masked in logs. Several experiments
    are compared.
    """
    from detbuild.config.secrets import secrets_of_host
    from detbuild.report.document import document, read_all
    from detbuild.report.page import render
    from detbuild.store.home import Home

    home = Home.open(session.home)
    folders = [home.experiment(id_) for id_ in dict.fromkeys(experiment_ids)]
    page = render(
        document(read_all(folders, points=points, secrets=secrets_of_host(session.environ)), made=time.time())
    )
    if str(output) == "-":
        sys.stdout.buffer.write(page)
        return
    _write(output, page)
    click.echo(output)


def _write(output: Path, page: bytes) -> None:
    from detbuild.store.files import write_output

    write_output(output, page)
