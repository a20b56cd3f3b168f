"""`detbuild list`, `describe`, `wait`, `cancel`, `kill` and `resume`."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from detbuild.cli.arguments import complete_ids, experiment_argument
from detbuild.cli.group import Command
from detbuild.cli.session import Session, pass_session
from detbuild.cli.table import json_option, show_json, show_table

if TYPE_CHECKING:
    from detbuild.cli.table import Row


@click.command("list", cls=Command)
@json_option
@click.option("-q", "--quiet", is_flag=True, help="Print ids only.")
@pass_session
def list_(session: Session, *, as_json: bool, quiet: bool) -> None:
    """List experiments, newest first.

    With --json: a list of {"id", "name", "state", "why", "metric", "best", "steps_completed", "trial_count",
    "checkpoint_count", "created", "ended", "local", "test_mode", "labels", "folder"}.
    """
    from detbuild.cli import documents, listing

    rows = [documents.experiment(state, folder) for state, folder in listing.experiments(session.home)]
    if as_json:
        show_json(rows)
    elif quiet:
        for row in rows:
            click.echo(row["id"])
    else:
        columns = {
            "ID": "id",
            "NAME": "name",
            "STATE": "state",
            "BATCHES": "steps_completed",
            "BEST": _best,
            "CHECKPOINTS": "checkpoint_count",
            "CREATED": _created,
        }
        show_table(rows, columns, empty="no experiments yet; start one with `detbuild create CONFIG DIR`")


@click.command(cls=Command)
@experiment_argument
@json_option
@pass_session
def describe(session: Session, *, experiment_id: int, as_json: bool) -> None:
    """Show one experiment: runs, metrics, checkpoints.

    With --json: the keys of `detbuild list --json`, and "image", "tag", "context_dir", "host", "version" and
    "trials", each with its "validations", "checkpoints" and "runs".
    """
    from detbuild.cli import documents, listing
    from detbuild.cli.pages import experiment_page

    state, folder = listing.experiment(session.home, experiment_id)
    if as_json:
        show_json(documents.described(state, folder))
    else:
        click.echo(experiment_page(state, folder))


def _best(row: Row) -> str:
    from detbuild.cli.text import number

    return f"{row['metric']}={number(row['best'])}" if row["best"] is not None else ""


def _created(row: Row) -> str:
    return datetime.fromtimestamp(float(str(row["created"]))).strftime("%Y-%m-%d %H:%M")  # noqa: DTZ006  (local time)
