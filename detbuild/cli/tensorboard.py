"""`detbuild tensorboard`: experiments in TensorBoard, one run a trial, with hyperparameters."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from detbuild.cli.arguments import experiment_argument
from detbuild.cli.group import Command
from detbuild.cli.session import Session, pass_session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detbuild.store.state import ExperimentState, TrialState


@click.command(cls=Command, context_settings={"ignore_unknown_options": True})
@experiment_argument
@click.option(
    "--trial",
    "trial_ids",
    type=click.IntRange(min=1),
    multiple=True,
    help="Only this trial. May be repeated.",
)
@click.option(
    "--export",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write the logs into this directory, and start nothing.",
)
@click.argument("arguments", metavar="[-- ARGUMENTS OF TENSORBOARD]", nargs=-1, type=click.UNPROCESSED)
@pass_session
def tensorboard(
    session: Session,
    /,
    *,
    experiment_id: int,
    trial_ids: tuple[int, ...],
    directory: Path | None,
    arguments: tuple[str, ...],
) -> int:
    """Show an experiment in TensorBoard: scalars of each trial, and the HParams page.

    What a trial wrote itself is shown as it is; other trials are shown from their records.
    """
    import tempfile

    from detbuild.cli import listing
    from detbuild.report.eventfiles import lay_out, require

    require()
    state, folder = listing.experiment(session.home, experiment_id)
    trials = _chosen(state, trial_ids)
    if directory is not None:
        for place in lay_out(folder, trials, state.header.metric, directory):
            click.echo(place)
        return 0
    with tempfile.TemporaryDirectory(prefix="detbuild-tensorboard-") as temporary:
        lay_out(folder, trials, state.header.metric, Path(temporary))
        return _serve(temporary, arguments)


def _chosen(state: ExperimentState, trial_ids: Sequence[int]) -> list[TrialState]:
    from detbuild.errors import ConfigError

    for number in trial_ids:
        if number not in state.trials:
            raise ConfigError(
                f"experiment {state.header.id} has no trial {number}",
                mend=f"see `detbuild describe {state.header.id}`",
            )
    return [state.trials[number] for number in trial_ids or state.trials]


def _serve(logs: str, arguments: Sequence[str]) -> int:
    import subprocess

    return subprocess.run(
        [sys.executable, "-m", "tensorboard.main", "--logdir", logs, *arguments], check=False
    ).returncode
