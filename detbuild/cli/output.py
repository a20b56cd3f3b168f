"""Where the lines of events go: results to stdout, progress and hints to stderr, or a live view.

Every command imports this module, so each function imports what it needs itself.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from detbuild.events import Emit, Event


@contextmanager
def view(environ: Mapping[str, str], *, quiet: bool = False) -> Iterator[Emit]:
    """Return the `emit` for this terminal, pipe or `--quiet`."""
    if quiet:
        yield only_id
    elif sys.stderr.isatty() and environ.get("TERM") not in {None, "", "dumb"}:
        from detbuild.cli.live import LiveView

        with LiveView() as live:
            yield live.emit
    else:
        from detbuild.cli.terminal import echo
        from detbuild.progress import SearchLines

        yield SearchLines(echo).emit


def only_id(event: Event) -> None:
    """Print for `-q`: the ID on stdout, warnings on stderr, nothing else."""
    from detbuild.events import ExperimentCreated, Warned

    if isinstance(event, ExperimentCreated):
        click.echo(event.experiment_id)
    elif isinstance(event, Warned):
        _print(event)


def no_output(event: Event) -> None:
    """Print only warnings and slow steps, for commands that print their own result."""
    from detbuild.events import Warned, Working

    if isinstance(event, (Warned, Working)):
        _print(event)


def _print(event: Event) -> None:
    from detbuild.progress import lines_of

    for line in lines_of(event):
        click.echo(line, err=True)
