"""`detbuild tensorboard`: experiments in TensorBoard, one run a trial, with hyperparameters."""

from __future__ import annotations

import re
import sys
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from detbuild.cli.arguments import complete_ids
from detbuild.cli.group import Command
from detbuild.cli.session import Session, pass_session

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from detbuild.report.eventfiles import Chosen

_REFERENCE = re.compile(r"([1-9]\d*)(?:/([1-9]\d*))?")


@click.command(cls=Command, context_settings={"ignore_unknown_options": True})
@click.argument(
    "words",
    metavar="ID[/TRIAL]... [-- ARGUMENTS OF TENSORBOARD]",
    nargs=-1,
    required=True,
    type=click.UNPROCESSED,
    shell_complete=complete_ids,
)
@click.option(
    "-t",
    "--trial",
    "--trial-ids",
    "trial_ids",
    type=click.IntRange(min=1),
    multiple=True,
    help="Only this trial of the one experiment. May be repeated.",
)
@click.option(
    "--export",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write the logs into this directory, and start nothing.",
)
@click.option("--no-browser", is_flag=True, hidden=True, expose_value=False)  # none is opened
@pass_session
def tensorboard(
    session: Session,
    /,
    *,
    words: tuple[str, ...],
    trial_ids: tuple[int, ...],
    directory: Path | None,
) -> int:
    """Show experiments in TensorBoard: scalars of each trial, and the HParams page.

    What a trial wrote itself is shown as it is; other trials are shown from their records. Ctrl-C ends it.
    """
    import tempfile

    from detbuild.report.eventfiles import lay_out, require

    require()
    references = tuple(takewhile(_REFERENCE.fullmatch, words))
    chosen = tuple(_chosen(session.home, _wanted(references, trial_ids)))
    if directory is not None:
        for place in lay_out(chosen, directory):
            click.echo(place)
        return 0
    with tempfile.TemporaryDirectory(prefix="detbuild-tensorboard-") as temporary:
        lay_out(chosen, Path(temporary))
        return _serve(temporary, words[len(references) :])


def _wanted(references: Sequence[str], trial_ids: Sequence[int]) -> dict[int, list[int]]:
    """The numbers of trials by experiment; an empty list stands for all of them."""
    if not references:
        raise click.UsageError("which experiment? write its number first")
    wanted: dict[int, list[int]] = {}
    whole = set()
    for reference in references:
        experiment_id, _, trial_id = reference.partition("/")
        trials = wanted.setdefault(int(experiment_id), [])
        if trial_id:
            trials.append(int(trial_id))
        else:
            whole.add(int(experiment_id))
    if trial_ids and (len(wanted) > 1 or not whole):
        raise click.UsageError("--trial goes with one experiment; of several write EXPERIMENT/TRIAL")
    return {number: [] if number in whole else trials for number, trials in wanted.items()} | (
        {number: list(trial_ids) for number in wanted} if trial_ids else {}
    )


def _chosen(home: Path, wanted: dict[int, list[int]]) -> Iterator[Chosen]:
    from detbuild.cli import listing
    from detbuild.errors import ConfigError
    from detbuild.report.eventfiles import Chosen

    for experiment_id, numbers in wanted.items():
        state, folder = listing.experiment(home, experiment_id)
        for number in numbers:
            if number not in state.trials:
                raise ConfigError(
                    f"experiment {experiment_id} has no trial {number}",
                    mend=f"see `detbuild describe {experiment_id}`",
                )
        trials = [state.trials[number] for number in dict.fromkeys(numbers or state.trials)]
        yield Chosen(folder, trials, state.header.metric)


def _serve(logs: str, arguments: Sequence[str]) -> int:
    import subprocess

    return subprocess.run(
        [sys.executable, "-m", "tensorboard.main", "--logdir", logs, *arguments], check=False
    ).returncode
