"""`detbuild report`: one page with all there is to see of experiments."""

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
    help="The file to write; - is stdout.",
)
@click.option(
    "--points",
    type=click.IntRange(min=10),
    default=1_000,
    show_default=True,
    help="Points of a curve, above which it is thinned; peaks stay.",
)
@pass_session
def report(session: Session, /, *, experiment_ids: tuple[int, ...], output: Path, points: int) -> None:
    """Write one page with all there is to see of experiments: curves, hyperparameters, trials, logs, config.

    The page is a single file that opens without a network and may be mailed. Secrets, values of variables,
    data and paths of the host are not in it; known secret values are masked in logs. With several
    experiments it compares them.
    """
    from detbuild.config.secrets import secrets_of_host
    from detbuild.report.document import document
    from detbuild.report.page import render
    from detbuild.report.sources import read_all
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
