"""Images of experiments: `detbuild image`, `base`, and `shell` and `run`, which open one.

A shell or a command has the image, user, mounts and GPUs of the experiment's trials.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import click

from detbuild.cli.arguments import pass_client, trial_argument
from detbuild.cli.commands import Command
from detbuild.cli.table import json_option, show_json, show_table
from detbuild.units import counted, size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detbuild.api.client import Client
    from detbuild.cli.table import Columns

_COLUMNS: Columns = {
    "IMAGE": lambda row: str(row["id"])[7:19],
    "CREATED": lambda row: time.strftime("%Y-%m-%d %H:%M", time.localtime(float(str(row["created"])))),
    "OWN SIZE": lambda row: size(float(str(row["size"]))),
    "CONTAINERS": "containers",
    "USED BY": lambda row: ", ".join(map(str, row["experiments"])) if row["experiments"] else "",  # type: ignore[call-overload]
}
_slots_option = click.option(
    "--slots",
    type=click.IntRange(min=0),
    metavar="N",
    help="Number of GPUs.  [default: as for a trial of the experiment]",
)


@click.command("list", cls=Command)
@json_option
@click.option("-q", "--quiet", is_flag=True, help="Print IDs only.")
@pass_client
def list_(client: Client, /, *, as_json: bool, quiet: bool) -> None:
    """List experiment images, newest first.

    With --json: a list of {"id", "tags", "created", "size", "containers", "experiments", "labels"}; size is
    in bytes that no other image shares, experiments are those of this home that have not ended.
    """
    from detbuild.api.images import images

    rows = images(client)
    if as_json:
        show_json(rows)
    elif quiet:
        for row in rows:
            click.echo(row["id"])
    else:
        show_table(rows, _COLUMNS, empty="no images yet")


@click.command(cls=Command)
@click.option(
    "--older-than",
    "hours",
    metavar="HOURS",
    default=24.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Keep images newer than this: other users may be about to use them.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be removed; remove nothing.")
@pass_client
def prune(client: Client, /, *, hours: float, dry_run: bool) -> None:
    """Remove unused experiment images and print their IDs.

    Images with a container, and those of experiments of this home that have not ended, are kept. A later
    submission of the same inputs rebuilds its image, from the engine's build cache where possible.
    """
    from detbuild.api import images

    freed: list[int] = []

    def removed(image: str, bytes_: int) -> None:
        freed.append(bytes_)
        click.echo(image)

    count = images.prune(client, hours=hours, dry_run=dry_run, removed=removed)
    would = "would remove" if dry_run else "removed"
    found = counted(count, "image")
    click.echo(f"{would} {len(freed)} of {found}, freeing {size(sum(freed))}", err=True)


@click.command(cls=Command)
@pass_client
def ensure(client: Client) -> None:
    """Find, pull or bootstrap the base image, and print its tag.

    It is the base of CPU experiments with this host's Python.
    """
    from detbuild.api.images import ensure_base
    from detbuild.cli.output import view

    with view(client.environ) as emit:
        tag = ensure_base(client, emit)
    click.echo(tag)


@click.command(cls=Command)
@pass_client
def bootstrap(client: Client) -> None:
    """Build the base image from Debian packages and print its tag.

    Needs Debian, root and a package mirror, but no registry; takes about 30 seconds.
    """
    from detbuild.api.images import bootstrap_base
    from detbuild.cli.output import view

    with view(client.environ) as emit:
        tag = bootstrap_base(client, emit)
    click.echo(tag)


@click.command("list", cls=Command)
@json_option
@pass_client
def list_bases(client: Client, /, *, as_json: bool) -> None:
    """List the known base images, and which of them the engine has.

    With --json: a list of {"reference", "os", "python", "cuda", "present"}.
    """
    from detbuild.api.images import bases

    rows = bases(client)
    if as_json:
        show_json(rows)
        return
    columns: Columns = {
        "BASE": "reference",
        "PYTHON": "python",
        "CUDA": "cuda",
        "PRESENT": lambda row: "yes" if row["present"] else "",
    }
    show_table(rows, columns, empty="no base images are known")


@click.command(cls=Command)
@trial_argument
@_slots_option
@pass_client
def shell(client: Client, /, *, trial: tuple[int, int], slots: int | None) -> int:
    """Open a shell in an experiment's image, with its user, mounts and GPUs.

    TRIAL is EXPERIMENT/TRIAL, e.g. 3/1, or an experiment ID; `det.get_cluster_info()` describes that trial.
    The container is removed when the shell ends.
    """
    return _run_in_image(client, trial, ("sh", "-c", "exec $(command -v bash || echo sh)"), slots)


@click.command(cls=Command, context_settings={"ignore_unknown_options": True})
@trial_argument
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@_slots_option
@pass_client
def run(client: Client, /, *, trial: tuple[int, int], command: tuple[str, ...], slots: int | None) -> int:
    """Run a command in an experiment's image: `detbuild run 3 -- python3 evaluate.py`.

    It has the user, mounts and GPUs of the experiment, starts in the context directory and returns the exit
    code of the command.
    """
    return _run_in_image(client, trial, command, slots)


def _run_in_image(client: Client, trial: tuple[int, int], command: Sequence[str], slots: int | None) -> int:
    import shutil

    from detbuild.api.images import run_in_image
    from detbuild.errors import EngineError

    experiment = client.experiment(trial[0])
    if shutil.which("docker", path=client.environ.get("PATH")) is None:
        raise EngineError(
            "command `docker` not found; it attaches this terminal to the container",
            hint="install the Docker CLI; all other commands work without it",
        )

    def attach(container: str) -> int:
        words = ["docker", "start", "--attach", "--interactive", container]
        return subprocess.run(words, env=dict(client.environ), check=False).returncode

    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    return run_in_image(experiment, command, attach, trial_id=trial[1], slots=slots, terminal=terminal)
