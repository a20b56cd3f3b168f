"""`detbuild image list | prune`: experiment images.

`detbuild base`: the base images of experiment images.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from detbuild.cli.arguments import Session, pass_session
from detbuild.cli.commands import Command
from detbuild.cli.table import json_option, show_json, show_table
from detbuild.units import counted, size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from detbuild.cli.table import Columns, Row
    from detbuild.engine.protocol import Engine, ImageState

_HOUR = 3600
_COLUMNS: Columns = {
    "IMAGE": lambda row: str(row["id"])[7:19],
    "CREATED": lambda row: time.strftime("%Y-%m-%d %H:%M", time.localtime(float(str(row["created"])))),
    "OWN SIZE": lambda row: size(float(str(row["size"]))),
    "CONTAINERS": "containers",
    "USED BY": lambda row: ", ".join(map(str, row["experiments"])) if row["experiments"] else "",  # type: ignore[call-overload]
}


@click.command("list", cls=Command)
@json_option
@click.option("-q", "--quiet", is_flag=True, help="Print IDs only.")
@pass_session
def list_(session: Session, /, *, as_json: bool, quiet: bool) -> None:
    """List experiment images, newest first.

    With --json: a list of {"id", "tags", "created", "size", "containers", "experiments", "labels"}; size is
    in bytes that no other image shares, experiments are those of this home that have not ended.
    """
    from detbuild.cli.output import no_output
    from detbuild.store.home import Home
    from detbuild.store.images import BUILT_LABEL, images_in_use

    names = images_in_use(Home.open(session.home), no_output)
    rows = [_row(image, names) for image in session.connect().find_images(BUILT_LABEL)]
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
@pass_session
def prune(session: Session, /, *, hours: float, dry_run: bool) -> None:
    """Remove unused experiment images and print their IDs.

    Images with a container, and those of experiments of this home that have not ended, are kept. A later
    submission of the same inputs rebuilds its image, from the engine's build cache where possible.
    """
    from detbuild.cli.output import no_output
    from detbuild.store.home import Home
    from detbuild.store.images import BUILT_LABEL, images_in_use, prunable

    engine = session.connect()
    images = engine.find_images(BUILT_LABEL)
    removable = prunable(
        images, images_in_use(Home.open(session.home), no_output), before=time.time() - hours * _HOUR
    )
    for image in removable:
        if not dry_run:
            engine.remove_image(image.id)
        click.echo(image.id)
    click.echo(_summary(removable, len(images), dry_run=dry_run), err=True)


def _summary(removed: Sequence[ImageState], count: int, *, dry_run: bool) -> str:
    would = "would remove" if dry_run else "removed"
    freed = size(sum(image.size for image in removed))
    return f"{would} {len(removed)} of {counted(count, 'image')}, freeing {freed}"


def _row(image: ImageState, names: Mapping[str, tuple[int, ...]]) -> Row:
    from detbuild.store.images import used_by

    return {
        "id": image.id,
        "tags": list(image.tags),
        "created": image.created,
        "size": image.size,
        "containers": image.containers,
        "experiments": list(used_by(image, names)),
        "labels": dict(image.labels),
    }


@click.command(cls=Command)
@pass_session
def ensure(session: Session) -> None:
    """Find, pull or bootstrap the base image, and print its tag.

    It is the base of CPU experiments with this host's Python.
    """
    from detbuild import experiment
    from detbuild.cli.output import view
    from detbuild.context.snapshot import ContextSnapshot
    from detbuild.engine.bases import ensure_base
    from detbuild.image.needs import read_needs
    from detbuild.image.resolve import Target, resolve
    from detbuild.image.table import load_table
    from detbuild.resources import images_dir

    host = experiment.this_host(session.environ)
    resolution = resolve(
        read_needs(ContextSnapshot()),
        table=load_table(images_dir()),
        target=Target(gpu=False, python=host.python, machine=host.machine),
    )
    with view(session.environ) as emit:
        tag = ensure_base(resolution, session.connect(), emit)
    click.echo(tag)


@click.command(cls=Command)
@pass_session
def bootstrap(session: Session) -> None:
    """Build the base image from Debian packages and print its tag.

    Needs Debian, root and a package mirror, but no registry; takes about 30 seconds.
    """
    from detbuild.cli.output import view
    from detbuild.engine.bases import bootstrap_base

    with view(session.environ) as emit:
        tag = bootstrap_base(session.connect(), emit)
    click.echo(tag)


@click.command("list", cls=Command)
@json_option
@pass_session
def list_bases(session: Session, /, *, as_json: bool) -> None:
    """List the known base images, and which of them the engine has.

    With --json: a list of {"reference", "os", "python", "cuda", "present"}.
    """
    from detbuild.image.table import load_table
    from detbuild.resources import images_dir

    engine = session.connect()
    rows = [
        {
            "reference": base.pinned,
            "os": base.os,
            "python": base.python,
            "cuda": base.cuda or None,
            "present": _is_present(engine, base.pinned),
        }
        for base in load_table(images_dir()).bases
    ]
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


def _is_present(engine: Engine, reference: str) -> bool:
    return engine.image_id(reference) is not None
