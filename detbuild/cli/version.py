"""`det version`: the versions for a bug report."""

from __future__ import annotations

import click

from detbuild.cli.group import Command
from detbuild.cli.session import Session, pass_session
from detbuild.cli.table import json_option, show_json


@click.command(cls=Command)
@json_option
@pass_session
def version(session: Session, *, as_json: bool) -> None:
    """Show versions of detbuild, Python and the engine.

    With --json: {"detbuild", "python", "engine"}; "engine" is null if none answers.
    """
    import platform

    from detbuild.errors import EngineError
    from determined._version import __version__

    try:
        engine = session.connect().info().version
    except EngineError:
        engine = None
    found = {"detbuild": __version__, "python": platform.python_version(), "engine": engine}
    if as_json:
        show_json(found)
        return
    for name, value in found.items():
        click.echo(f"{name:<9} {value or 'no engine answers'}")
