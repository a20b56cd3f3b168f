"""`det experiment list-trials` and `det trial describe | kill | download | support-bundle`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from detbuild.cli.arguments import experiment_argument, trial_argument
from detbuild.cli.checkpoints import fetch, output_option
from detbuild.cli.downloads import smaller_option
from detbuild.cli.group import Command
from detbuild.cli.session import Session, pass_session
from detbuild.cli.table import csv_option, json_option, show_csv, show_json, show_table, state_cell

if TYPE_CHECKING:
    from pathlib import Path

    from detbuild.cli.table import Columns, Row


@click.command("list-trials", cls=Command)
@experiment_argument
@json_option
@csv_option
@pass_session
def list_(session: Session, /, *, experiment_id: int, as_json: bool, as_csv: bool) -> None:
    """List the trials of an experiment.

    With --json: a list as under "trials" of `detbuild describe --json`.
    """
    from detbuild.cli import documents, listing
    from detbuild.cli.exports import tables_of

    state, folder = listing.experiment(session.home, experiment_id)
    rows = documents.trials(state, folder)
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
@pass_session
def describe(
    session: Session,
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
    from detbuild.checkpoint.find import checkpoints_of
    from detbuild.cli import documents, listing
    from detbuild.cli.exports import metrics_table, summary_table
    from detbuild.cli.pages import trial_lines
    from detbuild.store.metrics import measurements, summary

    state, folder = listing.trial(session.home, trial)
    figures = summary(measurements(folder, state)) if summarized else {}
    if as_csv:
        show_csv(listing.measurements(state, folder))
    elif as_json:
        more = {"metrics_summary": figures} if summarized else {}
        own = [one for one in checkpoints_of(folder) if one.trial_id == state.id]
        show_json({**documents.trial(state, folder, own, metrics=metrics), **more})
    else:
        click.echo("\n".join(trial_lines(state, folder)))
        if metrics:
            metrics_table(listing.measurements(state, folder))
        if summarized:
            summary_table(figures)


def _hparams(row: Row) -> str:
    from detbuild.cli.show import metrics_line

    hparams = row["hparams"]
    return metrics_line(hparams) if isinstance(hparams, dict) else ""


@click.command(cls=Command)
@trial_argument
@pass_session
def kill(session: Session, /, *, trial: tuple[int, int]) -> None:
    """Stop a trial immediately; other trials of its experiment keep running.

    TRIAL is EXPERIMENT/TRIAL, e.g. 3/1; a number alone means trial 1 of that experiment.
    """
    from detbuild.cli.experiments import ask

    ask(session, trial[0], "kill", trial_id=trial[1])


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
@pass_session
def download(
    session: Session,
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
    from detbuild.checkpoint.find import best_first, checkpoints_of, goal_of
    from detbuild.cli import listing
    from detbuild.errors import ConfigError

    if best + latest + (uuid is not None) > 1:
        raise click.UsageError("--best, --latest and --uuid are mutually exclusive")
    if sort_by and not best:
        raise click.UsageError("--sort-by requires --best")
    state, folder = listing.trial(session.home, trial)
    found = [f for f in checkpoints_of(folder) if f.trial_id == trial[1] and f.state == "COMPLETED"]
    if best:
        found = best_first(found, goal_of(folder.header(), sort_by, smaller_is_better))
    found = [f for f in found if f.checkpoint.uuid.startswith(uuid or "")]
    if not found or (uuid is not None and len(found) > 1):
        raise ConfigError(
            f"trial {folder.id}/{state.id} has no such checkpoint",
            hint=f"see `det experiment list-checkpoints {folder.id}`",
        )
    fetch(found[0], target)
