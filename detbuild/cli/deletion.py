"""`detbuild delete`: experiments with their checkpoints, for good."""

from __future__ import annotations

import click

from detbuild.cli.arguments import experiments_argument
from detbuild.cli.attributes import confirm
from detbuild.cli.group import Command
from detbuild.cli.session import Session, pass_session


@click.command(cls=Command)
@experiments_argument
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Also what is registered, is another's source, or has no engine.")
@pass_session
def delete(session: Session, /, *, experiment_ids: tuple[int, ...], yes: bool, force: bool) -> None:
    """Delete experiments that have ended, with their checkpoints wherever they are stored.

    What a crash cuts short is finished by the next delete, resume or list. Images stay: others may use them.
    """
    from detbuild.controller.deletion import delete as delete_one
    from detbuild.store.home import Home

    home = Home.open(session.home)
    for experiment_id in experiment_ids:
        home.experiment(experiment_id)
    names = ", ".join(map(str, experiment_ids))
    confirm(f"experiment {names} and its checkpoints will be gone for good", yes=yes)
    for experiment_id in experiment_ids:
        delete_one(home, experiment_id, session.connect, force=force)
        click.echo(f"experiment {experiment_id} deleted", err=True)
