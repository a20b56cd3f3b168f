"""`detbuild preview-search`: the trials that a search plans."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from detbuild.cli.arguments import check_config_file, config_argument, overrides_option, template_option
from detbuild.cli.group import Command
from detbuild.cli.session import Session, pass_session
from detbuild.cli.table import json_option, show_json, show_table
from detbuild.units import counted

if TYPE_CHECKING:
    from pathlib import Path


@click.command("preview-search", cls=Command)
@config_argument
@overrides_option
@template_option
@json_option
@pass_session
def preview_search(
    session: Session,
    /,
    *,
    config: Path,
    overrides: tuple[str, ...],
    templates: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show the trials that a search plans, and their lengths.

    The plan assumes equally good trials; trials of one bracket compete with each other.
    """
    from detbuild.config.host import host_config
    from detbuild.config.parse import load_config
    from detbuild.config.sources import template_layers
    from detbuild.search.preview import preview

    check_config_file(config)
    below = (*template_layers(session.home, templates), *host_config(session.home).layers)
    planned = preview(load_config(config, overrides, below))
    rows = [asdict(row) for row in planned.rows]
    if as_json:
        show_json({"unit": planned.unit, "rows": rows, "trials": planned.trials, "total": planned.total})
        return
    columns = {"bracket": "bracket", "trials": "trials", planned.unit: "length"}
    show_table(rows, columns, empty="no trials")
    total = "unlimited length" if planned.total is None else f"{planned.total} {planned.unit}"
    click.echo(f"{counted(planned.trials, 'trial')}, {total} in total")
