"""`detbuild pause`, `activate` and `continue`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from detbuild.cli.arguments import (
    experiment_argument,
    experiments_argument,
    experiments_of,
    overrides_option,
    worst,
)
from detbuild.cli.following import INTERRUPTED
from detbuild.cli.group import Command
from detbuild.cli.session import Session, pass_session
from detbuild.store.state import ENDED, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.home import Home


@click.command(cls=Command)
@experiments_argument
@pass_session
def pause(session: Session, /, *, experiment_ids: tuple[int, ...]) -> None:
    """Pause experiments after a checkpoint, until `detbuild activate ID`.

    A paused experiment uses no container, GPU or process.
    """
    from detbuild.controller.attend import request
    from detbuild.store.home import Home

    home = Home.open(session.home)
    experiments_of(home, experiment_ids)
    for id_ in experiment_ids:
        paused = request(home, id_, "pause").state == State.PAUSED
        now = State.PAUSED if paused else State.STOPPING_PAUSED
        click.echo(f"experiment {id_} {now.label}: detbuild activate {id_}", err=True)


@click.command(cls=Command)
@experiments_argument
@pass_session
def activate(session: Session, /, *, experiment_ids: tuple[int, ...]) -> int:
    """Unpause experiments; a local one runs here until it ends."""
    from detbuild.store.home import Home

    home = Home.open(session.home)
    experiments_of(home, experiment_ids)
    codes = []
    for experiment_id in experiment_ids:
        codes.append(_activate(session, home, experiment_id))
        if codes[-1] == INTERRUPTED:
            break
    return worst(codes)


def _activate(session: Session, home: Home, experiment_id: int) -> int:
    from detbuild.controller.attend import request
    from detbuild.controller.onward import request_activate

    if _local_and_idle(home, experiment_id, (State.PAUSED,)):
        return _here(session, home, experiment_id, request_activate)
    request(home, experiment_id, "activate")
    click.echo(f"experiment {experiment_id} continues; detbuild logs {experiment_id} -f", err=True)
    return 0


@click.command("continue", cls=Command)
@experiment_argument
@overrides_option
@click.option(
    "--config-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="YAML file with a whole config or the fields to change. --config takes precedence.",
)
@click.option("-f", "--follow", is_flag=True, help="Follow until the experiment ends.")
@pass_session
def continue_(
    session: Session,
    /,
    *,
    experiment_id: int,
    overrides: tuple[str, ...],
    config_file: Path | None,
    follow: bool,
) -> int:
    """Continue an ended or paused experiment; a local one runs here until it ends.

    Trials that did not complete run again from their newest checkpoints. With a new
    `--config searcher.max_length...` all trials of a single, random or grid search train to that length.
    """
    from detbuild.cli.following import followed
    from detbuild.controller import attend, onward
    from detbuild.store.home import Home

    home = Home.open(session.home)
    if _local_and_idle(home, experiment_id, (State.PAUSED, *ENDED)):
        ask = partial(onward.request_continue, overrides=overrides, file=config_file)
        return _here(session, home, experiment_id, ask)
    number = onward.continue_(home, experiment_id, overrides, config_file)
    if follow:
        act = partial(attend.follow, home, experiment_id, since=number)
        return followed(session, home, experiment_id, act)
    click.echo(f"experiment {experiment_id} continues; detbuild logs {experiment_id} -f", err=True)
    return 0


def _local_and_idle(home: Home, experiment_id: int, states: tuple[State, ...]) -> bool:
    from detbuild.store.state import fold

    folder = home.experiment(experiment_id)
    header = folder.header()
    return header.local and fold(header, folder.journal()).state in states


def _here(session: Session, home: Home, experiment_id: int, ask: Callable[[ExperimentFolder], int]) -> int:
    from detbuild.cli.following import followed
    from detbuild.controller.onward import continue_local

    folder = home.experiment(experiment_id)
    return followed(session, home, experiment_id, partial(continue_local, folder, ask, session.environ))
