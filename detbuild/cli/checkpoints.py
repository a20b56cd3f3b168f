"""`detbuild checkpoint list | describe | download`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from detbuild.cli.arguments import experiment_argument
from detbuild.cli.group import Command
from detbuild.cli.session import Session, pass_session
from detbuild.cli.table import csv_option, json_option, show_csv, show_json, show_table, state_cell
from detbuild.cli.text import visible
from detbuild.units import size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from detbuild.checkpoint.find import Found
    from detbuild.cli.table import Columns, Row

output_option = click.option(
    "-o",
    "--output-dir",
    "target",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Output directory, new or empty.  [default: checkpoints/<uuid>]",
)
uuid_argument = click.argument("uuid", metavar="UUID")


@click.command("list", cls=Command)
@experiment_argument
@json_option
@csv_option
@click.option("-q", "--quiet", is_flag=True, help="Print UUIDs only.")
@pass_session
def list_(session: Session, /, *, experiment_id: int, as_json: bool, as_csv: bool, quiet: bool) -> None:
    """List the checkpoints of an experiment, newest first.

    With --json: a list of {"uuid", "experiment_id", "trial_id", "run", "steps_completed", "state", "size",
    "files", "metrics", "directory", "url"}; state is COMPLETED, PARTIALLY_DELETED, ERROR (found damaged) or
    DELETED; directory is null if it is not on this host, url if it is not in the cloud.
    """
    from detbuild.checkpoint.find import checkpoints_of
    from detbuild.cli import documents
    from detbuild.store.home import Home

    found = checkpoints_of(Home.open(session.home).experiment(experiment_id))
    rows = [documents.checkpoint(one) for one in found]
    if quiet:
        for row in rows:
            click.echo(row["uuid"])
    else:
        show_checkpoints(rows, experiment_id, as_json=as_json, as_csv=as_csv)


def show_checkpoints(rows: Sequence[Row], experiment_id: int, *, as_json: bool, as_csv: bool) -> None:
    """Print elements of `detbuild checkpoint list --json` in the requested format."""
    if as_json:
        show_json(rows)
    elif as_csv:
        show_csv(rows)
    else:
        columns: Columns = {
            "UUID": "uuid",
            "TRIAL": lambda row: f"{row['experiment_id']}/{row['trial_id']}",
            "BATCH": "steps_completed",
            "SIZE": lambda row: size(float(str(row["size"]))),
            "STATE": state_cell,
            "METRICS": _metrics,
        }
        show_table(rows, columns, empty=f"experiment {experiment_id} has no checkpoints")


@click.command(cls=Command)
@uuid_argument
@json_option
@pass_session
def describe(session: Session, /, *, uuid: str, as_json: bool) -> None:
    """Show one checkpoint and verify each of its files against the manifest.

    A unique prefix of the UUID is enough. With --json: the keys of `detbuild checkpoint list --json`,
    "contents" (path and bytes of each file) and "damage" (a list, empty if it is intact). The exit code is 4
    if it is damaged.
    """
    from detbuild.checkpoint.download import damage, raise_damage
    from detbuild.checkpoint.find import files_of, find_checkpoint
    from detbuild.cli import documents
    from detbuild.store.home import Home

    home = Home.open(session.home)
    found = find_checkpoint(home, uuid)
    contents = files_of(home, found) if found.directory or found.cloud else {}
    problems = damage(found)
    if as_json:
        show_json({**documents.checkpoint(found), "contents": dict(contents), "damage": problems})
    else:
        _show(found, contents, problems)
    if found.directory:
        raise_damage(found, problems)


def _show(found: Found, contents: Mapping[str, int], problems: Sequence[str]) -> None:
    from detbuild.cli import documents

    click.echo(f"checkpoint {found.checkpoint.uuid}  trial {found.experiment_id}/{found.trial_id}")
    click.echo(
        f"batch {found.checkpoint.steps_completed}  "
        + (_metrics(documents.checkpoint(found)) or "not validated")
    )
    place = str(found.directory or found.url or "")
    click.echo(
        f"{visible(place)}  {'DAMAGED' if problems else 'intact' if found.directory else 'in the cloud'}"
    )
    for path, count in contents.items():
        click.echo(f"{size(count):>9}  {visible(path)}")
    for problem in problems:
        click.echo(f"  damage: {visible(problem)}")


@click.command(cls=Command)
@uuid_argument
@output_option
@click.option(  # accepted; there is no master
    "--mode", type=click.Choice(["direct", "master", "auto"]), hidden=True, expose_value=False
)
@pass_session
def download(session: Session, /, *, uuid: str, target: Path | None) -> None:
    """Download a checkpoint, verify it, and print its directory.

    A unique prefix of the UUID is enough. A damaged checkpoint is an error and leaves no files.
    """
    from detbuild.checkpoint.find import find_checkpoint
    from detbuild.store.home import Home

    fetch(find_checkpoint(Home.open(session.home), uuid), target)


def fetch(found: Found, target: Path | None) -> None:
    """Download to `target`, by default to the directory that Determined uses."""
    from detbuild.checkpoint.download import download as copy

    directory = target or Path("checkpoints", found.checkpoint.uuid)
    copy(found, directory)
    click.echo(directory)


def _metrics(row: Row) -> str:
    from detbuild.cli.show import metrics_line

    metrics = row["metrics"]
    return metrics_line(metrics) if isinstance(metrics, dict) else ""
