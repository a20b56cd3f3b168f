"""`detbuild slots`: who uses which GPU or CPU slot, and the queue for them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import click

from detbuild.cli.arguments import pass_client
from detbuild.cli.commands import Command
from detbuild.cli.table import json_option, show_json, show_table

if TYPE_CHECKING:
    from detbuild.api.client import Client
    from detbuild.cli.table import Columns, Row


@click.command(cls=Command)
@json_option
@pass_client
def slots(client: Client, /, *, as_json: bool) -> None:
    """Show the slots of this host and the queue for them.

    Experiments of all users and homes are shown, queued ones in the order of their turns. Where "trial" is
    null, `detbuild shell` or `run` uses the slot. "usable" is false for a slot outside this home's limit.

    With --json: {"slots": a list of {"kind", "slot", "usable", "experiment", "trial", "user", "home"},
    "queued": a list of {"kind", "position", "experiment", "trial", "user", "home", "slots", "priority",
    "weight", "seconds", "why"}}. "position" is null for a trial that a limit keeps from starting.
    """
    from detbuild.api.slots import slots as slots_of

    held, queued = slots_of(client)
    if as_json:
        show_json({"slots": held, "queued": queued})
        return
    show_table(held, {"SLOT": _slot, "TRIAL": _trial, "USER": "user"}, empty="this host has no slots")
    if queued:
        click.echo()
        columns: Columns = {
            "NEXT": "position",
            "TRIAL": _trial,
            "USER": "user",
            "REQUESTS": _requested,
            "PRIORITY": "priority",
            "WAITED": _waited,
            "REASON": "why",
        }
        show_table(queued, columns, empty="")


def _slot(row: Row) -> str:
    name = f"CPU slot {row['slot']}" if row["kind"] == "cpu" else str(row["slot"])
    return name if row["usable"] else f"{name} (outside this home's limit)"


def _trial(row: Row) -> str:
    if row["user"] is None:
        return ""
    if row["experiment"] is None:
        return "?"
    return (
        f"{row['experiment']}/{row['trial']}" if row["trial"] is not None else f"shell of {row['experiment']}"
    )


def _requested(row: Row) -> str:
    return "1 CPU slot" if row["kind"] == "cpu" else f"{row['slots']} GPU{'s' if row['slots'] != 1 else ''}"


def _waited(row: Row) -> str:
    return str(timedelta(seconds=int(float(str(row["seconds"])))))
