"""`detbuild checkpoint delete | gc | import`."""

from __future__ import annotations

from pathlib import Path

import click

from detbuild.cli.arguments import experiment_argument
from detbuild.cli.attributes import confirm
from detbuild.cli.group import Command
from detbuild.cli.session import Session, pass_session
from detbuild.cli.table import json_option, show_json
from detbuild.units import counted


@click.command(cls=Command)
@click.argument("uuids", metavar="UUID...", nargs=-1, required=True)
@click.option(
    "--glob",
    "globs",
    metavar="PATTERN",
    multiple=True,
    help="Delete only matching files, e.g. 'optimizer/**'. May be repeated.",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
@pass_session
def delete(session: Session, /, *, uuids: tuple[str, ...], globs: tuple[str, ...], yes: bool) -> None:
    """Delete checkpoints, on this host and in the cloud.

    A unique prefix of a UUID is enough; commas may separate UUIDs. Registered model versions and the source
    checkpoints of other experiments are not deleted.
    """
    from detbuild.controller.keeping import delete as delete_all
    from detbuild.store.home import Home

    names = [name for word in uuids for name in word.split(",") if name]
    what = "files of checkpoint" if globs else "checkpoint"
    confirm(f"permanently delete {what} {', '.join(names)}", yes=yes)
    for one in delete_all(Home.open(session.home), names, globs):
        click.echo(one.checkpoint.uuid)


@click.command(cls=Command)
@experiment_argument
@click.option(
    "--save-experiment-best",
    type=click.IntRange(min=0),
    metavar="N",
    help="Keep the N best of the experiment.",
)
@click.option(
    "--save-trial-best", type=click.IntRange(min=0), metavar="N", help="Keep the N best of each trial."
)
@click.option(
    "--save-trial-latest", type=click.IntRange(min=0), metavar="N", help="Keep the N newest of each trial."
)
@click.option("--dry-run", is_flag=True, help="Print what would be deleted; delete nothing.")
@json_option
@pass_session
def gc(
    session: Session,
    /,
    *,
    experiment_id: int,
    save_experiment_best: int | None,
    save_trial_best: int | None,
    save_trial_latest: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Delete checkpoints outside the retention policy and print their UUIDs.

    The policy is the experiment's own unless options override it. With --json: {"kept", "deleted"}, two lists
    of UUIDs.
    """
    from dataclasses import replace

    from detbuild.controller.keeping import collect, policy
    from detbuild.store.home import Home

    home = Home.open(session.home)
    given = {
        "save_experiment_best": save_experiment_best,
        "save_trial_best": save_trial_best,
        "save_trial_latest": save_trial_latest,
    }
    overrides = {name: value for name, value in given.items() if value is not None}
    retention = replace(policy(home, experiment_id), **overrides)
    found = collect(home, experiment_id, retention, dry_run=dry_run)
    if as_json:
        show_json({"kept": list(found.kept), "deleted": list(found.garbage)})
        return
    for uuid in found.garbage:
        click.echo(uuid)
    what = "would be deleted" if dry_run else "deleted"
    deleted, kept = counted(len(found.garbage), "checkpoint"), counted(len(found.kept), "checkpoint")
    click.echo(f"{deleted} {what}, {kept} kept", err=True)


@click.command("import", cls=Command)
@click.argument("source", metavar="PATH", type=click.Path(path_type=Path))
@click.option(
    "--uuid", metavar="UUID", help="UUID to store it under.  [default: its directory's name, or a new one]"
)
@pass_session
def import_(session: Session, /, *, source: Path, uuid: str | None) -> None:
    """Import a checkpoint and print its UUID.

    PATH is its directory or a tar file of it. An experiment starts from it with
    `searcher.source_checkpoint_uuid`.
    """
    from detbuild.checkpoint.source import import_checkpoint
    from detbuild.store.home import Home

    click.echo(import_checkpoint(Home.open(session.home), source, uuid))
