"""`det job ...` and `det task list`: Determined's words for experiments and trials that have not ended."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from detbuild.cli.arguments import experiment_argument
from detbuild.cli.group import Command
from detbuild.cli.session import Session, pass_session
from detbuild.cli.table import csv_option, json_option, show_csv, show_json, show_table, state_cell

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from detbuild.cli.documents import Document
    from detbuild.cli.table import Columns


@click.command("list", cls=Command)
@json_option
@csv_option
@click.option("--yaml", "as_json", is_flag=True, help="The same as --json: JSON is valid YAML.")
@click.option("--table", is_flag=True, hidden=True, expose_value=False)  # accepted; a table is the default
@pass_session
def jobs(session: Session, /, *, as_json: bool, as_csv: bool) -> None:
    """List experiments that have not ended, oldest first.

    With --json: a list as from `detbuild list --json`.
    """
    from detbuild.cli import listing
    from detbuild.cli.views import no_output
    from detbuild.store.state import ENDED

    found = [row for row in listing.experiments(session.home, no_output) if row["state"] not in ENDED]
    rows = found[::-1]
    if as_json:
        show_json(rows)
    elif as_csv:
        show_csv(rows)
    else:
        columns: Columns = {"ID": "id", "NAME": "name", "STATE": state_cell, "REASON": "why"}
        show_table(rows, columns, empty="no experiments are running or waiting")


@click.command(cls=Command)
@experiment_argument
@click.option(
    "-p", "--priority", type=int, metavar="N", help="Priority, 1 to 99; the lowest number runs first."
)
@click.option("-w", "--weight", type=float, metavar="W", help="Fair-share weight.")
@pass_session
def update(session: Session, /, *, experiment_id: int, priority: int | None, weight: float | None) -> None:
    """Set the priority or the weight of an experiment that has not ended."""
    if priority is None and weight is None:
        raise click.UsageError("nothing to update: give --priority or --weight")
    _update(session, experiment_id, {"priority": priority, "weight": weight})


@click.command("update-batch", cls=Command)
@click.argument("changes", metavar="ID.KEY=VALUE...", nargs=-1, required=True)
@pass_session
def update_batch(session: Session, /, *, changes: tuple[str, ...]) -> None:
    """Set priorities or weights of several experiments: `3.priority=10 4.weight=2`."""
    for experiment_id, values in [_change(text) for text in changes]:
        _update(session, experiment_id, values)


def _change(text: str) -> tuple[int, dict[str, int | float | None]]:
    match = re.fullmatch(r"(\d+)\.(?:priority=(\d+)|weight=(\d+(?:\.\d+)?))", text)
    if match is None:
        raise click.UsageError(f"{text!r} is not a change; expected e.g. 3.priority=10 or 3.weight=2.5")
    id_, priority, weight = match.groups()
    return int(id_), {"priority": int(priority)} if priority else {"weight": float(weight)}


def _update(session: Session, experiment_id: int, values: Mapping[str, int | float | None]) -> None:
    from detbuild.store.annotations import change_attributes
    from detbuild.store.home import Home

    given = {name: value for name, value in values.items() if value is not None}
    folder = Home.open(session.home).experiment(experiment_id)
    change_attributes(folder.path, lambda attributes: replace(attributes, **given))  # type: ignore[arg-type]
    click.echo(f"experiment {experiment_id} changed", err=True)


@click.command("list", cls=Command)
@json_option
@csv_option
@pass_session
def tasks(session: Session, /, *, as_json: bool, as_csv: bool) -> None:
    """List trials that have not ended; each is a task.

    With --json: a list of {"task", "experiment_id", "trial_id", "state", "why", "container", "gpu_ids"}.
    """
    rows = list(_tasks(session))
    if as_json:
        show_json(rows)
    elif as_csv:
        show_csv(rows)
    else:
        columns: Columns = {"TASK": "task", "STATE": state_cell, "CONTAINER": "container", "REASON": "why"}
        show_table(rows, columns, empty="no trials are running or waiting")


def _tasks(session: Session) -> Iterator[Document]:
    from detbuild.cli.views import no_output
    from detbuild.store.home import Home
    from detbuild.store.state import fold

    home = Home.open(session.home)
    read = home.each(lambda folder: fold(folder.header(), folder.journal()), no_output, oldest_first=True)
    for state in read:
        for trial in state.trials.values() if not state.over else ():
            run = trial.open_run
            if not trial.ended:
                yield {
                    "task": f"{state.header.id}/{trial.id}",
                    "experiment_id": state.header.id,
                    "trial_id": trial.id,
                    "state": trial.state,
                    "why": trial.why,
                    "container": run.container[:12] if run and run.container else None,
                    "gpu_ids": list(run.gpu_ids) if run else [],
                }
