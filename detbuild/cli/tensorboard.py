"""`detbuild tensorboard`: experiments in TensorBoard, one run a trial, with hyperparameters."""

from __future__ import annotations

import sys
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from detbuild.cli.arguments import experiment_numbers, trial_reference
from detbuild.cli.group import Command
from detbuild.cli.session import Session, pass_session

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from detbuild.store.folder import ExperimentFolder
    from detbuild.store.state import ExperimentState, TrialState


@click.command(cls=Command, context_settings={"ignore_unknown_options": True})
@click.option(
    "-t",
    "--trial",
    "--trial-ids",
    "wanted",
    metavar="TRIAL",
    multiple=True,
    help="Only this trial: EXPERIMENT/TRIAL, or its number in the only experiment. May be repeated.",
)
@click.option(
    "--export",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write the logs into this directory, and start nothing.",
)
@click.option("--no-browser", is_flag=True, hidden=True, expose_value=False)  # none is opened
@click.argument("words", metavar="ID... [-- ARGUMENTS OF TENSORBOARD]", nargs=-1, type=click.UNPROCESSED)
@pass_session
def tensorboard(
    session: Session, /, *, wanted: tuple[str, ...], directory: Path | None, words: tuple[str, ...]
) -> int:
    """Show experiments in TensorBoard: scalars of each trial, and the HParams page.

    What a trial wrote itself is shown as it is; other trials are shown from their records.
    """
    import tempfile

    from detbuild.report.eventfiles import require

    ids = tuple(takewhile(lambda word: word[:1].isdecimal(), words))
    if not ids and not wanted:
        raise click.UsageError("missing argument 'ID...'")
    require()
    shown = list(_shown(session, experiment_numbers(ids) if ids else (), wanted))
    if directory is not None:
        for place in _laid_out(shown, directory):
            click.echo(place)
        return 0
    with tempfile.TemporaryDirectory(prefix="detbuild-tensorboard-") as temporary:
        _laid_out(shown, Path(temporary))
        return _serve(temporary, words[len(ids) :])


_Shown = tuple["ExperimentState", "ExperimentFolder", "list[TrialState]"]


def _laid_out(shown: Sequence[_Shown], directory: Path) -> list[Path]:
    from detbuild.report.eventfiles import lay_out

    laid_out = (lay_out(folder, trials, state.header.metric, directory) for state, folder, trials in shown)
    return [place for places in laid_out for place in places]


def _shown(session: Session, ids: Sequence[int], wanted: Sequence[str]) -> Iterator[_Shown]:
    """Each experiment with those of its trials that are wanted: all, where none is named."""
    from detbuild.cli import listing

    chosen = [_reference(text, ids) for text in wanted]
    for id_ in dict.fromkeys((*ids, *(experiment for experiment, _ in chosen))):
        state, folder = listing.experiment(session.home, id_)
        numbers = [trial for experiment, trial in chosen if experiment == id_]
        yield state, folder, _chosen(state, numbers)


def _reference(text: str, ids: Sequence[int]) -> tuple[int, int]:
    if len(ids) == 1 and text.isdecimal():
        return ids[0], int(text)
    return trial_reference(click.get_current_context(), click.Option(["--trial"]), text)


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
