"""`det experiment list-trials` and `det trial describe | kill | download`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from detbuild.cli.arguments import experiment_argument, trial_argument
from detbuild.cli.checkpoints import fetch, output_option
from detbuild.cli.group import Command
from detbuild.cli.session import Session, pass_session
from detbuild.cli.table import json_option, show_json, show_table

if TYPE_CHECKING:
    from pathlib import Path

    from detbuild.cli.table import Columns, Row


@click.command("list-trials", cls=Command)
@experiment_argument
@json_option
@pass_session
def list_(session: Session, /, *, experiment_id: int, as_json: bool) -> None:
    """List the trials of an experiment.

    With --json: a list as under "trials" of `detbuild describe --json`.
    """
    from detbuild.cli import documents, listing

    state, folder = listing.experiment(session.home, experiment_id)
    rows = [documents.trial(trial, folder) for trial in state.trials.values()]
    if as_json:
        show_json(rows)
    else:
        columns: Columns = {
            "TRIAL": lambda row: f"{experiment_id}/{row['id']}",
            "STATE": "state",
            "BATCHES": "steps_completed",
            "RESTARTS": "restarts",
            "HYPERPARAMETERS": _hparams,
        }
        show_table(rows, columns, empty=f"experiment {experiment_id} has no trials yet")


@click.command(cls=Command)
@trial_argument
@json_option
@pass_session
def describe(session: Session, /, *, trial: tuple[int, int], as_json: bool) -> None:
    """Show one trial: runs, metrics, checkpoints.

    TRIAL is EXPERIMENT/TRIAL, such as 3/1; a lone number is the first trial of that experiment.
    """
    from detbuild.cli import documents, listing
    from detbuild.cli.pages import trial_lines

    state, folder = listing.trial(session.home, trial)
    if as_json:
        show_json(documents.trial(state, folder))
    else:
        click.echo("\n".join(trial_lines(state, folder)))


def _hparams(row: Row) -> str:
    from detbuild.cli.show import metrics_line

    hparams = row["hparams"]
    return metrics_line(hparams) if isinstance(hparams, dict) else ""


@click.command(cls=Command)
@trial_argument
@pass_session
def kill(session: Session, /, *, trial: tuple[int, int]) -> None:
    """Stop a trial at once; the other trials of its experiment go on.

    TRIAL is EXPERIMENT/TRIAL, such as 3/1; a lone number is the first trial of that experiment.
    """
    from detbuild.cli.experiments import ask

    ask(session, trial[0], "kill", trial_id=trial[1])


@click.command(cls=Command)
@trial_argument
@output_option
@click.option("--best", is_flag=True, help="The best by the searcher's metric, instead of the newest.")
@click.option("--latest", is_flag=True, help="The newest, which is the default.")
@pass_session
def download(
    session: Session, /, *, trial: tuple[int, int], target: Path | None, best: bool, latest: bool
) -> None:
    """Copy the newest or best checkpoint of a trial, verified, into a directory, and print its name.

    TRIAL is EXPERIMENT/TRIAL, such as 3/1; a lone number is the first trial of that experiment.
    """
    from detbuild.checkpoint.find import checkpoints_of
    from detbuild.cli import listing
    from detbuild.errors import ConfigError

    if best and latest:
        raise click.UsageError("--best and --latest exclude each other")
    state, folder = listing.trial(session.home, trial)
    there = [f for f in checkpoints_of(folder) if f.trial_id == trial[1] and f.state == "COMPLETED"]
    if best and state.progress.best:
        there = [f for f in there if f.checkpoint.validation == state.progress.best]
    if not there:
        raise ConfigError(
            f"trial {folder.id}/{state.id} has no such checkpoint",
            mend=f"see `det experiment list-checkpoints {folder.id}`",
        )
    fetch(there[0], target)
