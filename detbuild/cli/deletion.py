"""`detbuild delete`: permanently delete experiments and their checkpoints."""

from __future__ import annotations

import click

from detbuild.cli.arguments import experiments_argument
from detbuild.cli.attributes import confirm
from detbuild.cli.group import Command
from detbuild.cli.session import Session, pass_session


@click.command(cls=Command)
@experiments_argument
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option(
    "--force", is_flag=True, help="Delete registered and source checkpoints too, and without an engine."
)
@pass_session
def delete(session: Session, /, *, experiment_ids: tuple[int, ...], yes: bool, force: bool) -> None:
    """Delete ended experiments and their checkpoints, wherever they are stored.

    The next delete, resume or list finishes an interrupted deletion. Images are kept: others may use them.
    """
    from detbuild.controller.deletion import delete as delete_one
    from detbuild.store.home import Home

    home = Home.open(session.home)
    for experiment_id in experiment_ids:
        home.experiment(experiment_id)
    noun = "experiment" if len(experiment_ids) == 1 else "experiments"
    names = ", ".join(map(str, experiment_ids))
    confirm(f"permanently delete {noun} {names} and all checkpoints", yes=yes)
    for experiment_id in experiment_ids:
        delete_one(home, experiment_id, session.connect, force=force)
        click.echo(f"experiment {experiment_id} deleted", err=True)
