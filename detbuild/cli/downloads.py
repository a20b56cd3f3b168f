"""`det experiment list-checkpoints | download | download-model-def`: outputs of an experiment."""

from __future__ import annotations

from pathlib import Path

import click

from detbuild.cli.arguments import experiment_argument
from detbuild.cli.checkpoints import fetch, show_checkpoints
from detbuild.cli.group import Command
from detbuild.cli.session import Session, pass_session
from detbuild.cli.table import csv_option, json_option


def _boolean(_ctx: click.Context, _param: click.Parameter, value: str | None) -> bool | None:
    return None if value is None else value == "true"


smaller_option = click.option(
    "--smaller-is-better",
    type=click.Choice(["true", "false"], case_sensitive=False),
    callback=_boolean,
    help="With --sort-by: whether smaller is better.  [default: the searcher's]",
)


@click.command("list-checkpoints", cls=Command)
@experiment_argument
@click.option(
    "--best", type=click.IntRange(min=1), metavar="N", help="Only the best of each of the N best trials."
)
@json_option
@csv_option
@pass_session
def list_checkpoints(
    session: Session, /, *, experiment_id: int, best: int | None, as_json: bool, as_csv: bool
) -> None:
    """List the checkpoints of an experiment, newest first; with --best, the best first.

    With --json: a list as from `detbuild checkpoint list --json`.
    """
    from detbuild.checkpoint.find import best_of_trials, checkpoints_of, goal_of
    from detbuild.cli import documents
    from detbuild.store.home import Home

    folder = Home.open(session.home).experiment(experiment_id)
    found = list(checkpoints_of(folder))
    if best is not None:
        found = best_of_trials(found, goal_of(folder.header()))[:best]
    rows = [documents.checkpoint(one) for one in found]
    show_checkpoints(rows, experiment_id, as_json=as_json, as_csv=as_csv)


@click.command(cls=Command)
@experiment_argument
@click.option(
    "-o",
    "--output-dir",
    "target",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default="checkpoints",
    show_default=True,
    help="Parent directory; each checkpoint goes into DIR/<uuid>.",
)
@click.option(
    "--top-n", type=click.IntRange(min=1), default=1, show_default=True, help="Number of trials, best first."
)
@click.option(
    "--sort-by", metavar="METRIC", help="Rank by this validation metric.  [default: the searcher's]"
)
@smaller_option
@click.option("-q", "--quiet", is_flag=True, hidden=True, help="Accepted; only directories are printed.")
@pass_session
def download(
    session: Session,
    /,
    *,
    experiment_id: int,
    target: Path,
    top_n: int,
    sort_by: str | None,
    smaller_is_better: bool | None,
    quiet: bool,  # noqa: ARG001
) -> None:
    """Download the best checkpoints of an experiment, one per trial, and print their directories."""
    from detbuild.checkpoint.find import best_of_trials, checkpoints_of, goal_of
    from detbuild.errors import ConfigError
    from detbuild.store.home import Home

    folder = Home.open(session.home).experiment(experiment_id)
    goal = goal_of(folder.header(), sort_by, smaller_is_better)
    found = best_of_trials(checkpoints_of(folder), goal)[:top_n]
    if not found:
        raise ConfigError(
            f"experiment {folder.id} has no checkpoint with a value for {goal.metric or 'a metric'}",
            hint=f"see `det experiment list-checkpoints {folder.id}`",
        )
    for one in found:
        fetch(one, target / one.checkpoint.uuid)


@click.command("download-model-def", cls=Command)
@experiment_argument
@click.option(
    "-o",
    "--output-dir",
    "target",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Output directory, new or empty.  [default: experiment_<id>_model_def]",
)
@pass_session
def download_model_def(session: Session, /, *, experiment_id: int, target: Path | None) -> None:
    """Copy an experiment's code out of its image, and print the directory."""
    from detbuild.controller.definition import download_code
    from detbuild.store.home import Home

    home = Home.open(session.home)
    directory = target or Path(f"experiment_{experiment_id}_model_def")
    download_code(home, home.experiment(experiment_id), directory, session.connect)
    click.echo(directory)
