"""`detbuild checkpoint list | describe | download`.

`detbuild checkpoint delete | gc | import`.

`det experiment list-checkpoints | download | download-model-def`: outputs of an experiment.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from detbuild.cli.arguments import experiment_argument, pass_client
from detbuild.cli.commands import Command
from detbuild.cli.experiments import confirm
from detbuild.cli.table import csv_option, json_option, show_csv, show_json, show_table, state_cell
from detbuild.escaping import visible
from detbuild.units import counted, size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from detbuild.api.checkpoint import Checkpoint
    from detbuild.api.client import Client
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
@pass_client
def list_(client: Client, /, *, experiment_id: int, as_json: bool, as_csv: bool, quiet: bool) -> None:
    """List the checkpoints of an experiment, newest first.

    With --json: a list of {"uuid", "experiment_id", "trial_id", "run", "steps_completed", "state", "size",
    "files", "metrics", "directory", "url"}; state is COMPLETED, PARTIALLY_DELETED, ERROR (found damaged) or
    DELETED; directory is null if it is not on this host, url if it is not in the cloud.
    """
    rows = [one.document() for one in client.experiment(experiment_id).checkpoints()]
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
@pass_client
def describe(client: Client, /, *, uuid: str, as_json: bool) -> None:
    """Show one checkpoint and verify each of its files against the manifest.

    A unique prefix of the UUID is enough. With --json: the keys of `detbuild checkpoint list --json`,
    "contents" (path and bytes of each file) and "damage" (a list, empty if it is intact). The exit code is 4
    if it is damaged.
    """
    found = client.checkpoint(uuid)
    row, problems = found.document(), found.damage()
    contents = found.contents() if row["directory"] or row["url"] else {}
    if as_json:
        show_json({**row, "contents": dict(contents), "damage": problems})
    else:
        _show(row, contents, problems)
    found.raise_damage(problems)


def _show(row: Row, contents: Mapping[str, int], problems: Sequence[str]) -> None:
    click.echo(f"checkpoint {row['uuid']}  trial {row['experiment_id']}/{row['trial_id']}")
    click.echo(f"batch {row['steps_completed']}  {_metrics(row) or 'not validated'}")
    place = str(row["directory"] or row["url"] or "")
    click.echo(
        f"{visible(place)}  {'DAMAGED' if problems else 'intact' if row['directory'] else 'in the cloud'}"
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
@pass_client
def download(client: Client, /, *, uuid: str, target: Path | None) -> None:
    """Download a checkpoint, verify it, and print its directory.

    A unique prefix of the UUID is enough. A damaged checkpoint is an error and leaves no files.
    """
    fetch(client.checkpoint(uuid), target)


def fetch(found: Checkpoint, target: Path | None) -> None:
    """Download to `target`, by default to the directory that Determined uses."""
    directory = target or Path("checkpoints", found.uuid)
    found.download(directory)
    click.echo(directory)


def _metrics(row: Row) -> str:
    from detbuild.progress import metrics_line

    metrics = row["metrics"]
    return metrics_line(metrics) if isinstance(metrics, dict) else ""


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
@pass_client
def delete(client: Client, /, *, uuids: tuple[str, ...], globs: tuple[str, ...], yes: bool) -> None:
    """Delete checkpoints, on this host and in the cloud.

    A unique prefix of a UUID is enough; commas may separate UUIDs. Registered model versions and the source
    checkpoints of other experiments are not deleted.
    """
    names = [name for word in uuids for name in word.split(",") if name]
    what = "files of checkpoint" if globs else "checkpoint"
    confirm(f"permanently delete {what} {', '.join(names)}", yes=yes)
    for uuid in client.delete_checkpoints(names, globs):
        click.echo(uuid)


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
@pass_client
def gc(
    client: Client,
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
    given = {
        "save_experiment_best": save_experiment_best,
        "save_trial_best": save_trial_best,
        "save_trial_latest": save_trial_latest,
    }
    overrides = {name: value for name, value in given.items() if value is not None}
    found = client.experiment(experiment_id).collect(dry_run=dry_run, **overrides)
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
@pass_client
def import_(client: Client, /, *, source: Path, uuid: str | None) -> None:
    """Import a checkpoint and print its UUID.

    PATH is its directory or a tar file of it. An experiment starts from it with
    `searcher.source_checkpoint_uuid`.
    """
    click.echo(client.import_checkpoint(source, uuid))


def _boolean(_ctx: click.Context, _param: click.Parameter, value: str | None) -> bool | None:
    return None if value is None else value == "true"


smaller_option = click.option(
    "--smaller-is-better",
    type=click.Choice(["true", "false"], case_sensitive=False),
    callback=_boolean,
    help="With --sort-by: whether smaller is better.  [default: the searcher's]",
)


@click.command("list-checkpoints", cls=Command)
@experiment_argument
@click.option(
    "--best", type=click.IntRange(min=1), metavar="N", help="Only the best of each of the N best trials."
)
@json_option
@csv_option
@pass_client
def list_checkpoints(
    client: Client, /, *, experiment_id: int, best: int | None, as_json: bool, as_csv: bool
) -> None:
    """List the checkpoints of an experiment, newest first; with --best, the best first.

    With --json: a list as from `detbuild checkpoint list --json`.
    """
    experiment = client.experiment(experiment_id)
    found = experiment.checkpoints() if best is None else experiment.best_checkpoints()[:best]
    rows = [one.document() for one in found]
    show_checkpoints(rows, experiment_id, as_json=as_json, as_csv=as_csv)


@click.command(cls=Command)
@experiment_argument
@click.option(
    "-o",
    "--output-dir",
    "target",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default="checkpoints",
    show_default=True,
    help="Parent directory; each checkpoint goes into DIR/<uuid>.",
)
@click.option(
    "--top-n", type=click.IntRange(min=1), default=1, show_default=True, help="Number of trials, best first."
)
@click.option(
    "--sort-by", metavar="METRIC", help="Rank by this validation metric.  [default: the searcher's]"
)
@smaller_option
@click.option("-q", "--quiet", is_flag=True, hidden=True, help="Accepted; only directories are printed.")
@pass_client
def download_best(
    client: Client,
    /,
    *,
    experiment_id: int,
    target: Path,
    top_n: int,
    sort_by: str | None,
    smaller_is_better: bool | None,
    quiet: bool,  # noqa: ARG001
) -> None:
    """Download the best checkpoints of an experiment, one per trial, and print their directories."""
    from detbuild.errors import ConfigError

    experiment = client.experiment(experiment_id)
    found = experiment.best_checkpoints(sort_by, smaller_is_better=smaller_is_better)[:top_n]
    if not found:
        metric = sort_by or experiment.header().metric or "a metric"
        raise ConfigError(
            f"experiment {experiment.id} has no checkpoint with a value for {metric}",
            hint=f"see `det experiment list-checkpoints {experiment.id}`",
        )
    for one in found:
        fetch(one, target / one.uuid)


@click.command("download-model-def", cls=Command)
@experiment_argument
@click.option(
    "-o",
    "--output-dir",
    "target",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Output directory, new or empty.  [default: experiment_<id>_model_def]",
)
@pass_client
def download_model_def(client: Client, /, *, experiment_id: int, target: Path | None) -> None:
    """Copy an experiment's code out of its image, and print the directory."""
    directory = target or Path(f"experiment_{experiment_id}_model_def")
    client.experiment(experiment_id).download_code(directory)
    click.echo(directory)
