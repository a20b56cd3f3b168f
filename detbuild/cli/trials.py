"""`det experiment list-trials` and `det trial describe | kill | download | support-bundle`.

`det job ...` and `det task list`: Determined's words for experiments and trials that have not ended.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from detbuild.cli.arguments import experiment_argument, pass_client, trial_argument
from detbuild.cli.checkpoints import fetch, output_option, smaller_option
from detbuild.cli.commands import Command
from detbuild.cli.experiments import change
from detbuild.cli.table import csv_option, json_option, show_csv, show_json, show_table, state_cell

if TYPE_CHECKING:
    from detbuild.api.client import Client
    from detbuild.cli.table import Columns, Row


@click.command("list-trials", cls=Command)
@experiment_argument
@json_option
@csv_option
@pass_client
def list_(client: Client, /, *, experiment_id: int, as_json: bool, as_csv: bool) -> None:
    """List the trials of an experiment.

    With --json: a list as under "trials" of `detbuild describe --json`.
    """
    from detbuild.cli.table import tables_of

    experiment = client.experiment(experiment_id)
    rows = experiment.trial_documents(experiment.state())
    if as_json:
        show_json(rows)
    elif as_csv:
        show_csv(tables_of([{"trials": rows}])["trials"])
    else:
        columns: Columns = {
            "TRIAL": lambda row: f"{experiment_id}/{row['id']}",
            "STATE": state_cell,
            "BATCHES": "steps_completed",
            "RESTARTS": "restarts",
            "HYPERPARAMETERS": _hparams,
        }
        show_table(rows, columns, empty=f"experiment {experiment_id} has no trials yet")


@click.command(cls=Command)
@trial_argument
@click.option("--metrics", is_flag=True, help="Include all measurements.")
@click.option(
    "--metrics-summary", "summarized", is_flag=True, help="Count, last, min, max, mean of each metric."
)
@json_option
@csv_option
@pass_client
def describe(
    client: Client,
    /,
    *,
    trial: tuple[int, int],
    metrics: bool,
    summarized: bool,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Show one trial: runs, metrics, checkpoints.

    TRIAL is EXPERIMENT/TRIAL, e.g. 3/1; a number alone means trial 1 of that experiment. With --json: as
    under "trials" of `detbuild describe --json`, with "measurements" and "metrics_summary" if requested. With
    --csv: its measurements.
    """
    from detbuild.cli.pages import trial_lines
    from detbuild.cli.table import metrics_table, summary_table

    experiment = client.experiment(trial[0])
    found = experiment.trial(trial[1])
    figures = found.summary() if summarized else {}
    if as_csv:
        show_csv(found.measurement_documents())
    elif as_json:
        more = {"metrics_summary": figures} if summarized else {}
        show_json({**found.document(measurements=metrics), **more})
    else:
        click.echo("\n".join(trial_lines(experiment, found.state)))
        if metrics:
            metrics_table(found.measurement_documents())
        if summarized:
            summary_table(figures)


def _hparams(row: Row) -> str:
    from detbuild.progress import metrics_line

    hparams = row["hparams"]
    return metrics_line(hparams) if isinstance(hparams, dict) else ""


@click.command(cls=Command)
@trial_argument
@pass_client
def kill(client: Client, /, *, trial: tuple[int, int]) -> None:
    """Stop a trial immediately; other trials of its experiment keep running.

    TRIAL is EXPERIMENT/TRIAL, e.g. 3/1; a number alone means trial 1 of that experiment.
    """
    before, name = client.experiment(trial[0]).kill_trial(trial[1]), f"{trial[0]}/{trial[1]}"
    if before.ended:
        click.echo(f"trial {name} has already ended: {before.state.label}", err=True)
    else:
        click.echo(f"trial {name} stopping (kill); other trials keep running", err=True)


@click.command(cls=Command)
@trial_argument
@output_option
@click.option(
    "--best", is_flag=True, help="Download the best by the searcher's metric instead of the newest."
)
@click.option("--latest", is_flag=True, help="Download the newest (the default).")
@click.option("--uuid", metavar="UUID", help="Download the one with this UUID or unique prefix.")
@click.option("--sort-by", metavar="METRIC", help="With --best: rank by this validation metric.")
@smaller_option
@click.option("-q", "--quiet", is_flag=True, hidden=True, help="Accepted; only the directory is printed.")
@pass_client
def download(
    client: Client,
    /,
    *,
    trial: tuple[int, int],
    target: Path | None,
    best: bool,
    latest: bool,
    uuid: str | None,
    sort_by: str | None,
    smaller_is_better: bool | None,
    quiet: bool,  # noqa: ARG001
) -> None:
    """Download the newest or best checkpoint of a trial, verify it, and print its directory.

    TRIAL is EXPERIMENT/TRIAL, e.g. 3/1; a number alone means trial 1 of that experiment.
    """
    if best + latest + (uuid is not None) > 1:
        raise click.UsageError("--best, --latest and --uuid are mutually exclusive")
    if sort_by and not best:
        raise click.UsageError("--sort-by requires --best")
    found = client.trial(*trial)
    fetch(found.checkpoint(uuid, best=best, metric=sort_by, smaller_is_better=smaller_is_better), target)


@click.command("support-bundle", cls=Command)
@trial_argument
@click.option(
    "-o",
    "--output-dir",
    "directory",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=".",
    show_default=True,
    help="Directory of the archive.",
)
@pass_client
def support_bundle(client: Client, /, *, trial: tuple[int, int], directory: Path) -> None:
    """Pack config, journal, records and output of a trial into a .tar.gz file, and print its name.

    TRIAL is EXPERIMENT/TRIAL, e.g. 3/1; a number alone means trial 1 of that experiment. The bundle has the
    names of environment variables without their values, and no secrets, data or host paths; known secret
    values are masked in logs. Read the logs before sending it.
    """
    click.echo(client.trial(*trial).write_bundle(directory))


@click.command("list", cls=Command)
@json_option
@csv_option
@click.option("--yaml", "as_json", is_flag=True, help="The same as --json: JSON is valid YAML.")
@click.option("--table", is_flag=True, hidden=True, expose_value=False)  # accepted; a table is the default
@pass_client
def jobs(client: Client, /, *, as_json: bool, as_csv: bool) -> None:
    """List experiments that have not ended, oldest first.

    With --json: a list as from `detbuild list --json`.
    """
    from detbuild.store.state import ENDED

    rows = [one.document for one in client.listed() if one.summary.state not in ENDED][::-1]
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
@pass_client
def update(client: Client, /, *, experiment_id: int, priority: int | None, weight: float | None) -> None:
    """Set the priority or the weight of an experiment that has not ended."""
    if priority is None and weight is None:
        raise click.UsageError("nothing to update: give --priority or --weight")
    given = {"priority": priority, "weight": weight}
    change(client, experiment_id, **{name: value for name, value in given.items() if value is not None})


@click.command("update-batch", cls=Command)
@click.argument("changes", metavar="ID.KEY=VALUE...", nargs=-1, required=True)
@pass_client
def update_batch(client: Client, /, *, changes: tuple[str, ...]) -> None:
    """Set priorities or weights of several experiments: `3.priority=10 4.weight=2`."""
    for experiment_id, values in [_parsed(text) for text in changes]:
        change(client, experiment_id, **values)


def _parsed(text: str) -> tuple[int, dict[str, int | float]]:
    match = re.fullmatch(r"(\d+)\.(?:priority=(\d+)|weight=(\d+(?:\.\d+)?))", text)
    if match is None:
        raise click.UsageError(f"{text!r} is not a change; expected e.g. 3.priority=10 or 3.weight=2.5")
    id_, priority, weight = match.groups()
    return int(id_), {"priority": int(priority)} if priority else {"weight": float(weight)}


@click.command("list", cls=Command)
@json_option
@csv_option
@pass_client
def tasks(client: Client, /, *, as_json: bool, as_csv: bool) -> None:
    """List trials that have not ended; each is a task.

    With --json: a list of {"task", "experiment_id", "trial_id", "state", "why", "container", "gpu_ids"}.
    """
    rows = list(client.tasks())
    if as_json:
        show_json(rows)
    elif as_csv:
        show_csv(rows)
    else:
        columns: Columns = {"TASK": "task", "STATE": state_cell, "CONTAINER": "container", "REASON": "why"}
        show_table(rows, columns, empty="no trials are running or waiting")
