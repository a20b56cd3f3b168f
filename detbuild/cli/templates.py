"""`detbuild template ...`: named config templates for `detbuild create --template NAME`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from detbuild.cli.group import Command
from detbuild.cli.session import Session, pass_session
from detbuild.cli.table import csv_option, json_option, show_csv, show_json, show_table

if TYPE_CHECKING:
    from detbuild.store.home import Home

name_argument = click.argument("name", metavar="NAME")
file_argument = click.argument(
    "file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)


@click.command(cls=Command)
@name_argument
@file_argument
@pass_session
def create(session: Session, /, *, name: str, file: Path) -> None:
    """Create a config template from a file."""
    from detbuild.errors import ConfigError
    from detbuild.store.registry import template_file

    home = _home(session)
    if template_file(home, name).exists():
        raise ConfigError(
            f"template {name} already exists", hint=f"replace it with `detbuild template set {name} FILE`"
        )
    _keep(home, name, file)


@click.command("set", cls=Command)
@name_argument
@file_argument
@pass_session
def set_(session: Session, /, *, name: str, file: Path) -> None:
    """Create a config template, or replace the one of that name."""
    _keep(_home(session), name, file)


@click.command(cls=Command)
@name_argument
@pass_session
def describe(session: Session, /, *, name: str) -> None:
    """Print a template as written."""
    from detbuild.store.registry import read_template

    click.echo(read_template(_home(session), name), nl=False)


@click.command("list", cls=Command)
@json_option
@csv_option
@click.option("-d", "--details", is_flag=True, help="Include their text.")
@pass_session
def list_(session: Session, /, *, as_json: bool, as_csv: bool, details: bool) -> None:
    """List templates by name.

    With --json: a list of {"name", "file"}, with --details "text" too.
    """
    from detbuild.store.registry import read_template, template_file, template_names

    home = _home(session)
    rows = [{"name": name, "file": str(template_file(home, name))} for name in template_names(home)]
    if details:
        rows = [{**row, "text": read_template(home, row["name"])} for row in rows]
    if as_json:
        show_json(rows)
    elif as_csv:
        show_csv(rows)
    elif details:
        for row in rows:
            click.echo(f"{row['name']}  {row['file']}")
            click.echo("".join(f"    {line}\n" for line in row["text"].splitlines()), nl=False)
    else:
        empty = "no templates yet; `detbuild template create NAME FILE` creates one"
        show_table(rows, {"NAME": "name", "FILE": "file"}, empty=empty)


@click.command(cls=Command)
@name_argument
@pass_session
def remove(session: Session, /, *, name: str) -> None:
    """Remove a template; experiments created with it do not change."""
    from detbuild.store.registry import remove_template

    remove_template(_home(session), name)
    click.echo(f"removed {name}", err=True)


def _keep(home: Home, name: str, file: Path) -> None:
    from detbuild.config.yaml import read_document
    from detbuild.errors import ConfigError
    from detbuild.store.registry import write_template

    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {file}: {error}") from error
    if not isinstance(read_document(text, str(file)).plain(), dict):
        raise ConfigError(
            f"{file} is not a map of config fields", hint="write fields of an experiment config into it"
        )
    write_template(home, name, text)
    click.echo(name)


def _home(session: Session) -> Home:
    from detbuild.store.home import Home

    return Home.open(session.home)
