"""`detbuild config check`, `config schema` and `det experiment config`.

`detbuild preview-search`: the trials that a search plans.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from detbuild.cli.arguments import (
    check_config_file,
    config_argument,
    experiment_argument,
    overrides_option,
    pass_client,
    secrets_option,
    template_option,
)
from detbuild.cli.commands import Command
from detbuild.cli.table import json_option, show_json, show_table
from detbuild.jsontext import json_text
from detbuild.units import counted

if TYPE_CHECKING:
    from detbuild.api.client import Client


@click.command(cls=Command)
@config_argument
@overrides_option
@template_option
@json_option
@secrets_option
@pass_client
def check(
    client: Client,
    /,
    *,
    config: Path,
    overrides: tuple[str, ...],
    templates: tuple[str, ...],
    as_json: bool,
    show_secrets: bool,
) -> None:
    """Check a config and print it as YAML, with defaults and the source of each value.

    Secrets and values of environment variables are masked. All errors are reported at once, with file, line
    and column. With --json: {"config", "sources": {path of a value: source}}; a source is file:line, a
    template, the host's config.yaml, an option, or "default".
    """
    from detbuild.api import config as configs

    check_config_file(config)
    checked = configs.check(client, config, overrides, templates, show_secrets=show_secrets)
    if as_json:
        show_json({"config": checked.shown, "sources": checked.sources}, show_secrets=show_secrets)
    else:
        click.echo(checked.text, nl=False)


@click.command(cls=Command)
@experiment_argument
@secrets_option
@pass_client
def config(client: Client, *, experiment_id: int, show_secrets: bool) -> None:
    """Print an experiment's config with defaults; secrets and values of variables are masked."""
    found = client.experiment(experiment_id).config(masked=not show_secrets)
    show_json(found, show_secrets=show_secrets)


@click.command("schema", cls=Command)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, allow_dash=True),
    default="-",
    show_default=True,
    help="Output file; - is stdout.",
)
def write_schema(*, output: Path) -> None:
    """Write the JSON Schema of experiment configs, for editors.

    Reference it in the first line of a config: `# yaml-language-server: $schema=FILE`.
    """
    from detbuild.api.config import left_out, schema
    from detbuild.store.files import write_output

    for problem in left_out():
        click.echo(f"warning: {problem}", err=True)
    text = json_text(schema())
    if str(output) == "-":
        click.echo(text)
        return
    write_output(output, f"{text}\n".encode())
    click.echo(output)


@click.command("preview-search", cls=Command)
@config_argument
@overrides_option
@template_option
@json_option
@pass_client
def preview_search(
    client: Client,
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
    from detbuild.api.config import preview

    check_config_file(config)
    planned = preview(client, config, overrides, templates)
    rows = [asdict(row) for row in planned.rows]
    if as_json:
        show_json({"unit": planned.unit, "rows": rows, "trials": planned.trials, "total": planned.total})
        return
    columns = {"bracket": "bracket", "trials": "trials", planned.unit: "length"}
    show_table(rows, columns, empty="no trials")
    total = "unlimited length" if planned.total is None else f"{planned.total} {planned.unit}"
    click.echo(f"{counted(planned.trials, 'trial')}, {total} in total")
