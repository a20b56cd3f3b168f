"""`detbuild shell` and `detbuild run`: the image, user, mounts and GPUs of an experiment, interactively."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import click

from detbuild.cli.arguments import Session, pass_session, trial_argument
from detbuild.cli.commands import Command

if TYPE_CHECKING:
    from collections.abc import Sequence

slots_option = click.option(
    "--slots",
    type=click.IntRange(min=0),
    metavar="N",
    help="Number of GPUs.  [default: as for a trial of the experiment]",
)


@click.command(cls=Command)
@trial_argument
@slots_option
@pass_session
def shell(session: Session, /, *, trial: tuple[int, int], slots: int | None) -> int:
    """Open a shell in an experiment's image, with its user, mounts and GPUs.

    TRIAL is EXPERIMENT/TRIAL, e.g. 3/1, or an experiment ID; `det.get_cluster_info()` describes that trial.
    The container is removed when the shell ends.
    """
    return _run_in_image(session, trial, ("sh", "-c", "exec $(command -v bash || echo sh)"), slots)


@click.command(cls=Command, context_settings={"ignore_unknown_options": True})
@trial_argument
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@slots_option
@pass_session
def run(session: Session, /, *, trial: tuple[int, int], command: tuple[str, ...], slots: int | None) -> int:
    """Run a command in an experiment's image: `detbuild run 3 -- python3 evaluate.py`.

    It has the user, mounts and GPUs of the experiment, starts in the context directory and returns the exit
    code of the command.
    """
    return _run_in_image(session, trial, command, slots)


def _run_in_image(session: Session, trial: tuple[int, int], command: Sequence[str], slots: int | None) -> int:
    import shutil

    from detbuild.controller.containers import create_shell
    from detbuild.errors import EngineError
    from detbuild.store.home import Home

    home = Home.open(session.home)
    folder = home.experiment(trial[0])
    if shutil.which("docker", path=session.environ.get("PATH")) is None:
        raise EngineError(
            "command `docker` not found; it attaches this terminal to the container",
            hint="install the Docker CLI; all other commands work without it",
        )
    engine = session.connect()
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    container = create_shell(
        engine, home.id, folder, command, trial_id=trial[1], slots=slots, terminal=terminal
    )
    try:
        words = ["docker", "start", "--attach", "--interactive", container]
        code = subprocess.run(words, env=dict(session.environ), check=False).returncode
        state = engine.inspect(container)
        if state is not None and state.error:  # docker has printed the engine's own message
            raise EngineError(
                f"{command[0]} cannot be started in the image of experiment {folder.id}",
                hint=f"inspect the image with `detbuild shell {folder.id}`",
            )
        return code
    finally:
        engine.remove(container)
