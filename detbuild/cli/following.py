"""Follow an experiment until it ends or Ctrl-C detaches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from detbuild.cli.session import Session
    from detbuild.events import Emit
    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.home import Home
    from detbuild.store.state import ExperimentState

INTERRUPTED: Final = 130


def followed(session: Session, home: Home, experiment_id: int, act: Callable[[Emit], ExperimentState]) -> int:
    """Show what `act` emits until it returns, and return the exit code; Ctrl-C detaches."""
    from detbuild.cli.views import view

    try:
        with view(session.environ) as emit:
            state = act(emit)
    except KeyboardInterrupt:
        return detached(experiment_id)
    return ended(home, state)


def hint_if_paused(folder: ExperimentFolder) -> None:
    """Print how to unpause the experiment if it is paused."""
    from detbuild.controller.attend import needs_controller
    from detbuild.store.state import State, fold

    if fold(folder.header(), folder.journal()).state == State.PAUSED and not needs_controller(folder):
        click.echo(f"experiment {folder.id} paused: detbuild activate {folder.id}", err=True)


def detached(experiment_id: int) -> int:
    """Print that the experiment keeps running."""
    lines = (
        f"\ndetached; experiment {experiment_id} keeps running",
        f"  attach: detbuild logs {experiment_id} -f",
        f"  cancel: detbuild cancel {experiment_id}",
    )
    click.echo("\n".join(lines), err=True)
    return INTERRUPTED


def ended(home: Home, state: ExperimentState) -> int:
    """Print the results and the next commands."""
    from detbuild.cli.ending import exit_code_of
    from detbuild.cli.pages import ending_page, next_commands

    folder = home.experiment(state.header.id)
    click.echo(ending_page(state, folder))
    click.echo(next_commands(state, folder), err=True)
    return exit_code_of(state)
