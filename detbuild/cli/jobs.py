"""`det job list` and `det task list`: Determined's words for experiments and trials that have not ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from detbuild.cli.group import Command
from detbuild.cli.session import Session, pass_session
from detbuild.cli.table import csv_option, json_option, show_csv, show_json, show_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from detbuild.cli.documents import Document


@click.command("list", cls=Command)
@json_option
@csv_option
@pass_session
def jobs(session: Session, /, *, as_json: bool, as_csv: bool) -> None:
    """List the experiments that have not ended, the oldest first.

    With --json: a list as of `detbuild list --json`.
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
        columns = {"ID": "id", "NAME": "name", "STATE": "state", "WHY": "why"}
        show_table(rows, columns, empty="nothing runs and nothing waits")


@click.command("list", cls=Command)
@json_option
@csv_option
@pass_session
def tasks(session: Session, /, *, as_json: bool, as_csv: bool) -> None:
    """List the trials that have not ended: each is a task.

    With --json: a list of {"task", "experiment_id", "trial_id", "state", "why", "container", "gpu_ids"}.
    """
    rows = list(_tasks(session))
    if as_json:
        show_json(rows)
    elif as_csv:
        show_csv(rows)
    else:
        columns = {"TASK": "task", "STATE": "state", "CONTAINER": "container", "WHY": "why"}
        show_table(rows, columns, empty="nothing runs and nothing waits")


def _tasks(session: Session) -> Iterator[Document]:
    from detbuild.store.home import Home
    from detbuild.store.state import fold

    home = Home.open(session.home)
    for folder in (home.folder(number) for number in home.ids()):
        state = fold(folder.header(), folder.journal()) if folder.exists else None
        for trial in state.trials.values() if state and not state.over else ():
            run = trial.open_run
            if not trial.ended:
                yield {
                    "task": f"{folder.id}/{trial.id}",
                    "experiment_id": folder.id,
                    "trial_id": trial.id,
                    "state": trial.state,
                    "why": trial.why,
                    "container": run.container[:12] if run and run.container else None,
                    "gpu_ids": list(run.gpu_ids) if run else [],
                }
