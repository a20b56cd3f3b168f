"""`detbuild config check`, `config schema` and `det experiment config`.

`detbuild preview-search`: the trials that a search plans.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from detbuild.cli.arguments import (
    Session,
    check_config_file,
    config_argument,
    experiment_argument,
    overrides_option,
    pass_session,
    secrets_option,
    template_option,
)
from detbuild.cli.commands import Command
from detbuild.cli.table import json_option, show_json, show_table
from detbuild.jsontext import json_text
from detbuild.units import counted


@click.command(cls=Command)
@config_argument
@overrides_option
@template_option
@json_option
@secrets_option
@pass_session
def check(
    session: Session,
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
    from detbuild.cli.output import no_output, working
    from detbuild.config.host import host_config
    from detbuild.config.parse import trace_config, values, written
    from detbuild.config.rewrite import warnings_for
    from detbuild.config.sources import template_layers
    from detbuild.config.yaml import dotted

    check_config_file(config)
    host = host_config(session.home)
    with working(f"reading {config}"):
        traced = trace_config(config, overrides, (*template_layers(session.home, templates), *host.layers))
    for warning in (*warnings_for(traced.config), *host.warnings()):
        no_output(warning)
    shown = traced.config.resolved() if show_secrets else traced.config.masked()
    if as_json:
        sources = {dotted(value.path): value.source for value in values(traced, shown)}
        show_json({"config": shown, "sources": sources}, show_secrets=show_secrets)
    else:
        click.echo(written(values(traced, shown)), nl=False)


@click.command(cls=Command)
@experiment_argument
@secrets_option
@pass_session
def config(session: Session, *, experiment_id: int, show_secrets: bool) -> None:
    """Print an experiment's config with defaults; secrets and values of variables are masked."""
    from detbuild.store.experiment_dir import config_of
    from detbuild.store.home import Home

    found = config_of(Home.open(session.home).experiment(experiment_id))
    show_json(found.resolved() if show_secrets else found.masked(), show_secrets=show_secrets)


@click.command(cls=Command)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, allow_dash=True),
    default="-",
    show_default=True,
    help="Output file; - is stdout.",
)
def schema(*, output: Path) -> None:
    """Write the JSON Schema of experiment configs, for editors.

    Reference it in the first line of a config: `# yaml-language-server: $schema=FILE`.
    """
    from detbuild.config.schema import experiment_schema
    from detbuild.store.files import write_output

    text = json_text(experiment_schema())
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
