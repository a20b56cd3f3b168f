"""`detbuild report`: a self-contained HTML report.

`detbuild tensorboard`: experiments in TensorBoard, one run per trial, with hyperparameters.
"""

from __future__ import annotations

import sys
import time
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from detbuild.cli.arguments import complete_ids, experiment_numbers, pass_client, trial_reference
from detbuild.cli.commands import Command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from detbuild.api.client import Client
    from detbuild.report.eventfiles import SelectedTrials

_TRIAL = "--trial"
_REFRESH = 5.0  # seconds


@click.command(cls=Command)
@click.argument(
    "experiment_ids",
    metavar="ID...",
    nargs=-1,
    required=True,
    type=click.IntRange(min=1),
    shell_complete=complete_ids,
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, allow_dash=True),
    default="report.html",
    show_default=True,
    help="Output file; - is stdout.",
)
@click.option(
    "--points",
    type=click.IntRange(min=10),
    default=1_000,
    show_default=True,
    help="Maximum points of a curve; longer ones are downsampled, peaks stay.",
)
@pass_client
def report(client: Client, /, *, experiment_ids: tuple[int, ...], output: Path, points: int) -> None:
    """Write a self-contained HTML report: curves, hyperparameters, trials, logs, config.

    The page is a single file that opens without a network and may be mailed. It has no secrets, values of
    environment variables, data or host paths; known secret values are masked in logs. Several experiments
    are compared.
    """
    from detbuild.api.report import read_experiments
    from detbuild.report.document import document
    from detbuild.report.page import render

    experiments = client.experiments(tuple(dict.fromkeys(experiment_ids)))
    page = render(document(read_experiments(experiments, points=points), made=time.time()))
    if str(output) == "-":
        sys.stdout.buffer.write(page)
        return
    _write(output, page)
    click.echo(output)


def _write(output: Path, page: bytes) -> None:
    from detbuild.store.files import write_output

    write_output(output, page)


@click.command(cls=Command, context_settings={"ignore_unknown_options": True})
@click.argument(
    "words",
    metavar="ID[/TRIAL]... [-- ARGUMENTS OF TENSORBOARD]",
    nargs=-1,
    type=click.UNPROCESSED,
    shell_complete=complete_ids,
)
@click.option(
    "-t",
    _TRIAL,
    "--trial-ids",
    "only",
    metavar="TRIAL",
    multiple=True,
    help="Show this trial only: EXPERIMENT/TRIAL, or its ID in the only experiment. May be repeated.",
)
@click.option(
    "--export",
    "directory",
    type=click.Path(path_type=Path),
    help="Write the logs into this directory; do not start TensorBoard.",
)
@click.option("--no-browser", is_flag=True, hidden=True, expose_value=False)  # accepted; none is opened
@pass_client
def tensorboard(
    client: Client, /, *, words: tuple[str, ...], only: tuple[str, ...], directory: Path | None
) -> int:
    """Show experiments in TensorBoard: scalars of each trial, and the HParams page.

    Event files of a trial are shown unchanged; other trials are shown from their records. Ctrl-C ends it.
    """
    import tempfile

    from detbuild.cli.output import no_output
    from detbuild.report.eventfiles import export, refresh, require

    references = tuple(takewhile(lambda word: word[:1].isdecimal(), words))
    selected = _selected(references, only)
    require()
    chosen = tuple(_chosen(client, selected))
    if directory is not None:
        for place in export(chosen, directory, no_output):
            click.echo(place)
        return 0
    with tempfile.TemporaryDirectory(prefix="detbuild-tensorboard-") as temporary:
        export(chosen, Path(temporary), no_output)
        return _serve(temporary, words[len(references) :], lambda: refresh(chosen, Path(temporary)))


def _selected(references: Sequence[str], only: Sequence[str]) -> dict[int, list[int]]:
    """Return trial IDs by experiment; an empty list means all trials."""
    if not references and not only:
        raise click.UsageError("missing argument 'ID...'")
    plain = [text for text in references if "/" not in text]
    whole = experiment_numbers(plain) if plain else ()
    named = [_reference(text) for text in references if "/" in text]
    narrowed = [_narrowed(text, references, whole) for text in only]
    selected: dict[int, list[int]] = {number: [] for number in whole}
    for number, trial in named:
        if number not in whole:
            selected.setdefault(number, []).append(trial)
    return selected | _by_experiment(narrowed)


def _narrowed(text: str, references: Sequence[str], whole: Sequence[int]) -> tuple[int, int]:
    if not text.isdecimal() or not references:
        return _reference(text)
    if len(references) > 1 or len(whole) != 1:
        raise click.UsageError(f"{_TRIAL} {text} is ambiguous; expected EXPERIMENT/TRIAL")
    return whole[0], int(text)


def _reference(text: str) -> tuple[int, int]:
    return trial_reference(click.get_current_context(), click.Option([_TRIAL]), text)


def _by_experiment(named: Sequence[tuple[int, int]]) -> dict[int, list[int]]:
    return {number: [trial for of, trial in named if of == number] for number, _ in named}


def _chosen(client: Client, selected: Mapping[int, Sequence[int]]) -> Iterator[SelectedTrials]:
    from detbuild.errors import ConfigError
    from detbuild.report.eventfiles import SelectedTrials

    for experiment_id, numbers in selected.items():
        experiment = client.experiment(experiment_id)
        state = experiment.state()
        for number in numbers:
            if number not in state.trials:
                raise ConfigError(
                    f"experiment {experiment_id} has no trial {number}",
                    hint=f"see `detbuild describe {experiment_id}`",
                )
        chosen = [state.trials[number] for number in dict.fromkeys(numbers or state.trials)]
        yield SelectedTrials(list(map(experiment.trial_of, chosen)), state.header.metric)


def _serve(logs: str, arguments: Sequence[str], refresh: Callable[[], None]) -> int:
    """Run TensorBoard, and keep copying new data of trials to its log directory."""
    import subprocess
    import threading

    from detbuild.cli.output import no_output
    from detbuild.errors import DetbuildError
    from detbuild.events import Warned

    ended = threading.Event()

    def keep_up() -> None:
        try:
            while not ended.wait(_REFRESH):
                refresh()
        except DetbuildError as error:
            no_output(Warned(f"TensorBoard is no longer updated: {error}", error.hint))

    thread = threading.Thread(target=keep_up, daemon=True)
    thread.start()
    try:
        return subprocess.run(
            [sys.executable, "-m", "tensorboard.main", "--logdir", logs, *arguments], check=False
        ).returncode
    finally:
        ended.set()
        thread.join()
