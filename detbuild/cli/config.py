"""`detbuild config check`, `config schema` and `det experiment config`."""

from __future__ import annotations

from pathlib import Path

import click

from detbuild.cli.arguments import (
    check_config_file,
    config_argument,
    experiment_argument,
    overrides_option,
    template_option,
)
from detbuild.cli.group import Command
from detbuild.cli.session import Session, pass_session
from detbuild.cli.table import json_option, json_text, show_json


@click.command(cls=Command)
@config_argument
@overrides_option
@template_option
@json_option
@pass_session
def check(
    session: Session,
    /,
    *,
    config: Path,
    overrides: tuple[str, ...],
    templates: tuple[str, ...],
    as_json: bool,
) -> None:
    """Print the config with all defaults filled in, as YAML, and where each value came from.

    Secrets are hidden. What is wrong with it is said with file, line and column, everything at once. With
    --json: {"config", "sources": {path of a value: source}}; a source is file:line, a template, the host's
    config.yaml, an option, or "default".
    """
    from detbuild.cli.views import no_output, working
    from detbuild.config.host import host_config
    from detbuild.config.parse import trace_config
    from detbuild.config.problems import dotted
    from detbuild.config.provenance import values
    from detbuild.config.templates import template_layers
    from detbuild.config.unacted import warnings_for
    from detbuild.config.written import written

    check_config_file(config)
    host = host_config(session.home)
    with working(f"reading {config}"):
        traced = trace_config(config, overrides, (*template_layers(session.home, templates), *host.layers))
    for warning in (*warnings_for(traced.config), *host.warnings()):
        no_output(warning)
    if as_json:
        sources = {dotted(value.path): value.source for value in values(traced)}
        show_json({"config": traced.config.masked(), "sources": sources})
    else:
        click.echo(written(values(traced)), nl=False)


@click.command(cls=Command)
@experiment_argument
@pass_session
def config(session: Session, *, experiment_id: int) -> None:
    """Print the config of an experiment with all defaults filled in; secrets are hidden."""
    from detbuild.store.home import Home
    from detbuild.store.submitted import config_of

    show_json(config_of(Home.open(session.home).experiment(experiment_id)).masked())


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
