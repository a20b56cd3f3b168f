"""`detbuild doctor`: check this host and suggest fixes.

`det version`: the versions for a bug report.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from detbuild.cli.arguments import pass_client
from detbuild.cli.commands import Command
from detbuild.cli.table import json_option, show_json
from detbuild.errors import EngineError
from detbuild.escaping import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detbuild.api.client import Client
    from detbuild.api.doctor import Finding

COLOURS = {"ok": "green", "warning": "yellow", "fatal": "red"}


@click.command(cls=Command)
@json_option
@pass_client
def doctor(client: Client, /, *, as_json: bool) -> int:
    """Check this host and suggest fixes.

    Each check times out after 5 s. The exit code is 4 if a finding is fatal: no container can run then.
    With --json: a list of {"rule", "group", "severity", "finding", "hint"}; severity is ok, warning
    or fatal.
    """
    from detbuild.api.doctor import examine

    findings = examine(client)
    if as_json:
        show_json([asdict(finding) for finding in findings])
    else:
        _show(findings, colour=not client.environ.get("NO_COLOR"))
    return EngineError.exit_code if any(finding.severity == "fatal" for finding in findings) else 0


def _show(findings: Sequence[Finding], *, colour: bool) -> None:
    group = ""
    for finding in findings:
        if finding.group != group:
            group = finding.group
            click.echo(group)
        mark = f"{finding.severity:<7}"
        mark = (
            click.style(mark, fg=COLOURS[finding.severity]) if colour else mark
        )  # click strips colours for a pipe
        click.echo(f"  {mark}  {finding.rule}: {visible(finding.finding)}")
        for line in finding.hint.splitlines():
            click.echo(f"           hint: {visible(line)}")


@click.command(cls=Command)
@json_option
@pass_client
def version(client: Client, *, as_json: bool) -> None:
    """Show versions of detbuild, Python and the engine.

    With --json: {"detbuild", "python", "engine"}; "engine" is null if none answers.
    """
    import platform

    from detbuild.api.doctor import engine_version
    from determined._version import __version__

    engine = engine_version(client)
    found = {"detbuild": __version__, "python": platform.python_version(), "engine": engine}
    if as_json:
        show_json(found)
        return
    for name, value in found.items():
        click.echo(f"{name:<9} {value or 'no engine answers'}")
