"""`detbuild pause`, `activate` and `continue`: experiments that rest and go on."""

from __future__ import annotations

import click

from detbuild.cli.arguments import experiment_argument, overrides_option
from detbuild.cli.group import Command
from detbuild.cli.session import Session, pass_session


@click.command(cls=Command)
@experiment_argument
@pass_session
def pause(session: Session, /, *, experiment_id: int) -> None:
    """Stop an experiment after a checkpoint, until `detbuild activate ID`.

    While it is paused it holds no container, no GPU and no process.
    """
    from detbuild.controller.attend import request
    from detbuild.store.home import Home

    state = request(Home.open(session.home), experiment_id, "pause")
    if state.over:
        click.echo(f"experiment {experiment_id} had ended before: {state.state}", err=True)
    else:
        click.echo(f"asked experiment {experiment_id} to pause; detbuild activate {experiment_id}", err=True)


@click.command(cls=Command)
@experiment_argument
@pass_session
def activate(session: Session, /, *, experiment_id: int) -> None:
    """Let a paused experiment go on."""
    from detbuild.controller.attend import request
    from detbuild.store.home import Home

    state = request(Home.open(session.home), experiment_id, "activate")
    if state.over:
        click.echo(
            f"experiment {experiment_id} has ended: {state.state}; detbuild continue {experiment_id}",
            err=True,
        )
    else:
        click.echo(f"experiment {experiment_id} goes on; detbuild logs {experiment_id} -f", err=True)


@click.command("continue", cls=Command)
@experiment_argument
@overrides_option
@pass_session
def continue_(session: Session, /, *, experiment_id: int, overrides: tuple[str, ...]) -> None:
    """Go on with an experiment that has ended or is paused.

    Trials that were not completed run again from their newest checkpoints. With a longer
    `--config searcher.max_length...` the trial of a single search trains on.
    """
    from detbuild.controller.onward import continue_ as go_on
    from detbuild.store.home import Home

    go_on(Home.open(session.home), experiment_id, overrides)
    click.echo(f"experiment {experiment_id} goes on; detbuild logs {experiment_id} -f", err=True)
