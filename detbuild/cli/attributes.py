"""`detbuild archive`, `unarchive`, `set ...` and `label ...`: changes after submission."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from detbuild.cli.arguments import experiment_argument, experiments_argument
from detbuild.cli.group import Command
from detbuild.cli.session import Session, pass_session

if TYPE_CHECKING:
    from collections.abc import Callable

    from detbuild.store.annotations import Attributes
    from detbuild.store.experiment_dir import ExperimentFolder


@click.command(cls=Command)
@experiments_argument
@pass_session
def archive(session: Session, /, *, experiment_ids: tuple[int, ...]) -> None:
    """Hide experiments from the list; `detbuild list --all` shows them."""
    _archive(session, experiment_ids, archived=True)


@click.command(cls=Command)
@experiments_argument
@pass_session
def unarchive(session: Session, /, *, experiment_ids: tuple[int, ...]) -> None:
    """Show archived experiments in the list again."""
    _archive(session, experiment_ids, archived=False)


def _archive(session: Session, experiment_ids: tuple[int, ...], *, archived: bool) -> None:
    from detbuild.store.home import set_archived

    folders = [_folder(session, experiment_id) for experiment_id in experiment_ids]
    set_archived(folders, archived=archived)
    for folder in folders:
        click.echo(f"experiment {folder.id} {'archived' if archived else 'unarchived'}", err=True)


@click.command("name", cls=Command)
@experiment_argument
@click.argument("name")
@pass_session
def set_name(session: Session, /, *, experiment_id: int, name: str) -> None:
    """Rename an experiment."""
    _set(session, experiment_id, lambda attributes: replace(attributes, name=name))


@click.command("description", cls=Command)
@experiment_argument
@click.argument("description")
@pass_session
def set_description(session: Session, /, *, experiment_id: int, description: str) -> None:
    """Set the description of an experiment."""
    _set(session, experiment_id, lambda attributes: replace(attributes, description=description))


@click.command("notes", cls=Command)
@experiment_argument
@click.argument("notes")
@pass_session
def set_notes(session: Session, /, *, experiment_id: int, notes: str) -> None:
    """Replace the notes of an experiment."""
    _set(session, experiment_id, lambda attributes: replace(attributes, notes=notes))


@click.command("max-slots", cls=Command)
@experiment_argument
@click.argument("slots", metavar="N|none")
@pass_session
def set_max_slots(session: Session, /, *, experiment_id: int, slots: str) -> None:
    """Limit an experiment to N slots at a time; none removes the limit."""
    if slots != "none" and not (slots.isdecimal() and int(slots) > 0):
        raise click.UsageError(f"expected a number of slots or none, got {slots!r}")
    number = 0 if slots == "none" else int(slots)
    _set(session, experiment_id, lambda attributes: replace(attributes, max_slots=number))


@click.command("weight", cls=Command)
@experiment_argument
@click.argument("weight", type=float)
@pass_session
def set_weight(session: Session, /, *, experiment_id: int, weight: float) -> None:
    """Set the fair-share weight of an experiment."""
    _set(session, experiment_id, lambda attributes: replace(attributes, weight=weight))


@click.command("priority", cls=Command)
@experiment_argument
@click.argument("priority", type=int)
@pass_session
def set_priority(session: Session, /, *, experiment_id: int, priority: int) -> None:
    """Set the priority of an experiment, 1 to 99; the lowest number runs first."""
    _set(session, experiment_id, lambda attributes: replace(attributes, priority=priority))


@click.command("gc-policy", cls=Command)
@experiment_argument
@click.option(
    "--save-experiment-best",
    type=click.IntRange(min=0),
    required=True,
    metavar="N",
    help="Keep the N best of the experiment.",
)
@click.option(
    "--save-trial-best",
    type=click.IntRange(min=0),
    required=True,
    metavar="N",
    help="Keep the N best of each trial.",
)
@click.option(
    "--save-trial-latest",
    type=click.IntRange(min=0),
    required=True,
    metavar="N",
    help="Keep the N newest of each trial.",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
@pass_session
def set_gc_policy(
    session: Session,
    /,
    *,
    experiment_id: int,
    save_experiment_best: int,
    save_trial_best: int,
    save_trial_latest: int,
    yes: bool,
) -> None:
    """Set the checkpoint retention policy of an experiment.

    Checkpoints of an ended experiment are deleted at once, as by `detbuild checkpoint gc`.
    """
    from detbuild.controller.keeping import collect
    from detbuild.store.home import Home
    from detbuild.store.state import fold

    confirm(f"permanently delete checkpoints of experiment {experiment_id} beyond these numbers", yes=yes)
    _set(
        session,
        experiment_id,
        lambda attributes: replace(
            attributes,
            save_experiment_best=save_experiment_best,
            save_trial_best=save_trial_best,
            save_trial_latest=save_trial_latest,
        ),
    )
    folder = _folder(session, experiment_id)
    if fold(folder.header(), folder.journal()).over:
        for uuid in collect(Home.open(session.home), experiment_id).garbage:
            click.echo(uuid)


@click.command("add", cls=Command)
@experiment_argument
@click.argument("label")
@pass_session
def label_add(session: Session, /, *, experiment_id: int, label: str) -> None:
    """Add a label to an experiment."""
    from detbuild.store.annotations import with_label

    submitted = _folder(session, experiment_id).header().labels
    _set(session, experiment_id, lambda attributes: with_label(attributes, submitted, label))


@click.command("remove", cls=Command)
@experiment_argument
@click.argument("label")
@pass_session
def label_remove(session: Session, /, *, experiment_id: int, label: str) -> None:
    """Remove a label from an experiment."""
    from detbuild.errors import ConfigError
    from detbuild.store.annotations import without_label

    folder = _folder(session, experiment_id)
    labels = folder.header().labels
    if label not in labels:
        there = ", ".join(labels) or "none"
        raise ConfigError(f"experiment {experiment_id} has no label {label}", hint=f"its labels: {there}")
    submitted = labels
    _set(session, experiment_id, lambda attributes: without_label(attributes, submitted, label))


def confirm(what: str, *, yes: bool) -> None:
    """Ask before an action that cannot be undone.

    Args:
        what: The action: a verb and its object.
        yes: Do not ask.

    Raises:
        UsageError: Standard input is not a terminal.
    """
    import sys

    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"cannot ask for confirmation: add --yes to {what}")
    click.confirm(f"{what[:1].upper()}{what[1:]}?", abort=True, err=True)


def _set(session: Session, experiment_id: int, change: Callable[[Attributes], Attributes]) -> None:
    _change(_folder(session, experiment_id), change)
    click.echo(f"experiment {experiment_id} changed", err=True)


def _folder(session: Session, experiment_id: int) -> ExperimentFolder:
    from detbuild.store.home import Home

    return Home.open(session.home).experiment(experiment_id)


def _change(folder: ExperimentFolder, change: Callable[[Attributes], Attributes]) -> None:
    from detbuild.store.annotations import change_attributes

    change_attributes(folder.path, change)
