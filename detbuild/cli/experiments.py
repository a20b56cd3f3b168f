"""`detbuild list`, `describe`, `wait`, `cancel`, `kill` and `resume`."""

from __future__ import annotations

import sys
import time
from pathlib import PurePath
from typing import TYPE_CHECKING

import click

from detbuild.cli.arguments import experiments_argument, experiments_of, some_experiments_argument, worst
from detbuild.cli.group import Command
from detbuild.cli.session import Session, pass_session
from detbuild.cli.table import csv_option, json_option, show_csv, show_json, show_table, state_cell

if TYPE_CHECKING:
    from detbuild.cli.table import Columns, Row
    from detbuild.events import Event
    from detbuild.store.journal import Verb


@click.command("list", cls=Command)
@json_option
@csv_option
@click.option("-q", "--quiet", is_flag=True, help="Print IDs only.")
@click.option("-a", "--all", "archived", is_flag=True, help="Include archived experiments.")
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="Show at most N.")
@click.option("--offset", type=click.IntRange(min=0), default=0, metavar="N", help="Skip the first N.")
@click.option("--pages", hidden=True, expose_value=False)  # accepted; all are listed
@pass_session
def list_(
    session: Session,
    /,
    *,
    as_json: bool,
    as_csv: bool,
    quiet: bool,
    archived: bool,
    limit: int | None,
    offset: int,
) -> None:
    """List experiments, newest first.

    With --json: a list of {"id", "name", "state", "why", "metric", "best", "steps_completed", "progress",
    "trial_count", "checkpoint_count", "created", "ended", "local", "test_mode", "labels", "archived",
    "folder"}.
    """
    from itertools import islice

    from detbuild.cli import listing
    from detbuild.cli.views import no_output

    _finish_deletions(session)
    found = listing.experiments(session.home, no_output, archived=archived)
    rows = list(islice(found, offset, None if limit is None else offset + limit))
    if as_json:
        show_json(rows)
    elif as_csv:
        show_csv(rows)
    elif quiet:
        for row in rows:
            click.echo(row["id"])
    else:
        columns: Columns = {
            "ID": "id",
            "NAME": "name",
            "STATE": state_cell,
            "DONE": _done,
            "TRIALS": "trial_count",
            "BATCHES": "steps_completed",
            "BEST": _best,
            "CHECKPOINTS": "checkpoint_count",
            "CREATED": _created,
        }
        show_table(
            rows,
            columns,
            empty="no experiments yet; start one with `detbuild create CONFIG DIR`",
            spare=("CHECKPOINTS", "BATCHES"),
        )


@click.command(cls=Command)
@experiments_argument
@click.option("--metrics", is_flag=True, help="Include all measurements.")
@json_option
@csv_option
@click.option(
    "--outdir",
    metavar="DIR",
    type=click.Path(path_type=PurePath),
    help="With --csv: write experiments.csv, trials.csv, checkpoints.csv (and metrics.csv) there.",
)
@pass_session
def describe(
    session: Session,
    /,
    *,
    experiment_ids: tuple[int, ...],
    metrics: bool,
    as_json: bool,
    as_csv: bool,
    outdir: PurePath | None,
) -> None:
    """Show experiments: runs, metrics, checkpoints.

    With --json: the keys of `detbuild list --json`, and "description", "notes", "image", "tag",
    "limits" ("memory" in bytes, "cpus" in cores, null if unlimited; "read_only_root"), "context_dir", "host",
    "version" and "trials", each with its "validations", "checkpoints" and "runs", with
    --metrics "measurements" too; a list of these for several IDs. With --csv: a table of each kind.
    """
    from detbuild.cli import documents, listing
    from detbuild.cli.charts import encodable
    from detbuild.cli.exports import export, metrics_table
    from detbuild.cli.pages import experiment_page
    from detbuild.cli.text import terminal_width

    if outdir is not None and not as_csv:
        raise click.UsageError("--outdir requires --csv")
    found = [listing.experiment(session.home, experiment_id) for experiment_id in experiment_ids]
    if not as_json and not as_csv:
        for index, (state, folder) in enumerate(found):
            page = encodable(experiment_page(state, folder, terminal_width()), sys.stdout.encoding)
            click.echo("\n" * bool(index) + page)
            for trial in state.trials.values() if metrics else ():
                metrics_table(listing.measurements(trial, folder))
        return
    rows = [documents.described(state, folder, metrics=metrics) for state, folder in found]
    if as_json:
        show_json(rows[0] if len(rows) == 1 else rows)
    else:
        export(rows, outdir)


def _finish_deletions(session: Session) -> None:
    """Finish deletions that a crash interrupted."""
    from detbuild.store.home import Home, unfinished_deletions

    home = Home.open(session.home)
    if not any(unfinished_deletions(home)):
        return
    from detbuild.cli.views import no_output
    from detbuild.controller.deletion import finish_deletions
    from detbuild.events import Warned

    for error in finish_deletions(home):
        no_output(Warned(f"could not finish a deletion: {error}", error.hint))


def _best(row: Row) -> str:
    from detbuild.cli.text import number

    return f"{row['metric']}={number(row['best'])}" if row["best"] is not None else ""


def _done(row: Row) -> str:
    return f"{100 * float(str(row['progress'])):.0f} %"


def _created(row: Row) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(float(str(row["created"]))))


@click.command(cls=Command)
@experiments_argument
@click.option(
    "--polling-interval", type=float, hidden=True, expose_value=False
)  # accepted; the end is noticed at once
@pass_session
def wait(session: Session, /, *, experiment_ids: tuple[int, ...]) -> int:
    """Wait until experiments end.

    The exit code is 0 if all completed, 6 if one ended in error, else 7 if one was canceled.
    """
    from detbuild.cli.ending import exit_code_of
    from detbuild.cli.following import hint_if_paused
    from detbuild.cli.views import no_output
    from detbuild.controller.attend import wait as wait_for
    from detbuild.store.home import Home

    home = Home.open(session.home)
    for folder in experiments_of(home, experiment_ids):
        hint_if_paused(folder)
    codes = []
    for experiment_id in experiment_ids:
        state = wait_for(home, experiment_id, no_output)
        click.echo(f"experiment {experiment_id} {state.state.label}")
        codes.append(exit_code_of(state))
    return worst(codes)


@click.command(cls=Command)
@experiments_argument
@pass_session
def cancel(session: Session, /, *, experiment_ids: tuple[int, ...]) -> None:
    """Stop experiments after a final checkpoint; `detbuild wait ID` waits for the end."""
    _ask_all(session, experiment_ids, "cancel")


@click.command(cls=Command)
@experiments_argument
@pass_session
def kill(session: Session, /, *, experiment_ids: tuple[int, ...]) -> None:
    """Stop experiments immediately; training since their last checkpoints is lost."""
    _ask_all(session, experiment_ids, "kill")


def _ask_all(session: Session, experiment_ids: tuple[int, ...], verb: Verb) -> None:
    from detbuild.store.home import Home

    experiments_of(Home.open(session.home), experiment_ids)
    for experiment_id in experiment_ids:
        ask(session, experiment_id, verb)


def ask(session: Session, experiment_id: int, verb: Verb, *, trial_id: int | None = None) -> None:
    """Request the end of an experiment or of one of its trials, and print the result."""
    from detbuild.controller.attend import request
    from detbuild.store.home import Home

    state = request(Home.open(session.home), experiment_id, verb, trial_id)
    if trial_id is not None and state.trials[trial_id].ended:
        click.echo(
            f"trial {experiment_id}/{trial_id} has already ended: {state.trials[trial_id].state.label}",
            err=True,
        )
    elif trial_id is not None:
        click.echo(f"trial {experiment_id}/{trial_id} stopping ({verb}); other trials keep running", err=True)
    elif state.over:
        click.echo(f"experiment {experiment_id} has already ended: {state.state.label}", err=True)
    else:
        click.echo(f"experiment {experiment_id} stopping ({verb}): detbuild wait {experiment_id}", err=True)


@click.command(cls=Command)
@some_experiments_argument
@pass_session
def resume(session: Session, /, *, experiment_ids: tuple[int, ...]) -> int:
    """Restart controllers of experiments that lost theirs, by default of all; print their IDs.

    Running containers are adopted; no work is lost or repeated.
    """
    from detbuild.cli.views import no_output
    from detbuild.controller.attend import has_work_left, resume_one
    from detbuild.controller.attend import resume as resume_all
    from detbuild.errors import EngineError
    from detbuild.store.home import Home

    _finish_deletions(session)
    home = Home.open(session.home)
    damaged: list[Event] = []
    if experiment_ids:
        folders = experiments_of(home, experiment_ids)
        resumed = tuple(folder.id for folder in folders if has_work_left(folder) and resume_one(folder))
    else:
        resumed = resume_all(home, damaged.append)
    for id_ in resumed:
        click.echo(id_)
    for event in damaged:
        no_output(event)
    if not resumed:
        click.echo("nothing to resume: every experiment has ended or has a controller", err=True)
    return EngineError.exit_code if damaged else 0
