"""`detbuild base`: the base images of experiment images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from detbuild.cli.group import Command
from detbuild.cli.session import Session, pass_session
from detbuild.cli.table import json_option, show_json, show_table

if TYPE_CHECKING:
    from detbuild.cli.table import Columns
    from detbuild.engine.protocol import Engine


@click.command(cls=Command)
@pass_session
def ensure(session: Session) -> None:
    """Find, pull or bootstrap the base image, and print its tag.

    It is the base of CPU experiments with this host's Python.
    """
    from detbuild import experiment
    from detbuild.cli.views import view
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
    from detbuild.cli.views import view
    from detbuild.engine.bases import bootstrap_base

    with view(session.environ) as emit:
        tag = bootstrap_base(session.connect(), emit)
    click.echo(tag)


@click.command("list", cls=Command)
@json_option
@pass_session
def list_(session: Session, /, *, as_json: bool) -> None:
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
