"""`detbuild config check`, `config schema` and `det experiment config`."""

from __future__ import annotations

from pathlib import Path

import click

from detbuild.cli.arguments import config_argument, experiment_argument, overrides_option, template_option
from detbuild.cli.group import Command
from detbuild.cli.session import Session, pass_session
from detbuild.cli.table import json_text, show_json


@click.command(cls=Command)
@config_argument
@overrides_option
@template_option
@pass_session
def check(
    session: Session, /, *, config: Path, overrides: tuple[str, ...], templates: tuple[str, ...]
) -> None:
    """Print the config with all defaults filled in, as JSON, which is YAML too; secrets are hidden.

    What is wrong with it is said with file, line and column, everything at once.
    """
    from detbuild.cli.views import no_output
    from detbuild.config.parse import load_config
    from detbuild.config.templates import template_layers
    from detbuild.config.unacted import warnings_for

    loaded = load_config(config, overrides, template_layers(session.home, templates))
    for warning in warnings_for(loaded):
        no_output(warning)
    show_json(loaded.masked())


@click.command(cls=Command)
@experiment_argument
@pass_session
def config(session: Session, *, experiment_id: int) -> None:
    """Print the config of an experiment with all defaults filled in; secrets are hidden."""
    from detbuild.config.parse import parse_config
    from detbuild.store.home import Home

    folder = Home.open(session.home).experiment(experiment_id)
    text = folder.config_file.read_text(encoding="utf-8")
    show_json(parse_config(text, source=str(folder.config_file)).masked())


@click.command(cls=Command)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, allow_dash=True),
    default="-",
    show_default=True,
    help="The file to write; - is stdout.",
)
def schema(*, output: Path) -> None:
    """Write the JSON Schema of experiment configs, with which editors complete, explain and check them.

    Name it in the first line of a config: `# yaml-language-server: $schema=FILE`.
    """
    from detbuild.config.schema import experiment_schema
    from detbuild.store.files import write_synced

    text = json_text(experiment_schema())
    if str(output) == "-":
        click.echo(text)
        return
    write_synced(output, f"{text}\n".encode())
    click.echo(output)
