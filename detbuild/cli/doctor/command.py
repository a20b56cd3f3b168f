"""`detbuild doctor`: check this host and suggest fixes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from detbuild.cli.group import Command
from detbuild.cli.session import Session, pass_session
from detbuild.cli.table import json_option, show_json
from detbuild.cli.text import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detbuild.cli.doctor.rules import Finding

COLOURS = {"ok": "green", "warning": "yellow", "fatal": "red"}


@click.command(cls=Command)
@json_option
@pass_session
def doctor(session: Session, /, *, as_json: bool) -> int:
    """Check this host and suggest fixes.

    Each check times out after 5 s. The exit code is 4 if a finding is fatal: no container can run then.
    With --json: a list of {"rule", "group", "severity", "finding", "hint"}; severity is ok, warning
    or fatal.
    """
    from dataclasses import asdict

    from detbuild.cli.doctor.rules import examine
    from detbuild.errors import EngineError

    findings = examine(session)
    if as_json:
        show_json([asdict(finding) for finding in findings])
    else:
        _show(findings, colour=not session.environ.get("NO_COLOR"))
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
