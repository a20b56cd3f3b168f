"""`detbuild model ...`: the model registry, whose numbered versions are checkpoints.

`detbuild template ...`: named config templates for `detbuild create --template NAME`.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from detbuild.cli.arguments import Session, pass_session
from detbuild.cli.commands import Command
from detbuild.cli.table import csv_option, json_option, show_csv, show_json, show_table
from detbuild.jsontext import json_text
from detbuild.units import counted

if TYPE_CHECKING:
    from detbuild.cli.table import Columns, Row
    from detbuild.store.home import Home
    from detbuild.store.registry import Model, Version

name_argument = click.argument("name", metavar="NAME")
file_argument = click.argument(
    "file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)


@click.command(cls=Command)
@name_argument
@click.option("--description", default="", help="Description of the model.")
@click.option("--metadata", default="{}", metavar="JSON", help="A JSON object.")
@click.option("--label", "labels", multiple=True, help="A label. May be repeated.")
@json_option
@pass_session
def create(
    session: Session,
    /,
    *,
    name: str,
    description: str,
    metadata: str,
    labels: tuple[str, ...],
    as_json: bool,
) -> None:
    """Create a model in the registry."""
    from detbuild.store.home import Home
    from detbuild.store.registry import Model, create_model

    try:
        facts = json.loads(metadata)
    except ValueError as error:
        raise click.UsageError(f"--metadata is not valid JSON: {error}") from None
    if not isinstance(facts, dict):
        raise click.UsageError("--metadata is not a JSON object")
    model = Model(name=name, created=time.time(), description=description, metadata=facts, labels=labels)
    create_model(Home.open(session.home), model)
    if as_json:
        show_json(_document(model))
    else:
        click.echo(name)


@click.command("list", cls=Command)
@click.option("-a", "--all", "archived", is_flag=True, help="Include archived models.")
@json_option
@csv_option
@pass_session
def list_(session: Session, /, *, archived: bool, as_json: bool, as_csv: bool) -> None:
    """List models by name.

    With --json: a list of {"name", "description", "metadata", "labels", "archived", "created", "versions"}.
    """
    from detbuild.store.home import Home
    from detbuild.store.registry import models

    rows = [_document(model) for model in models(Home.open(session.home)) if archived or not model.archived]
    if as_json:
        show_json(rows)
    elif as_csv:
        show_csv([{**row, "versions": len(_versions(row))} for row in rows])
    else:
        columns: Columns = {
            "NAME": "name",
            "VERSIONS": lambda row: str(len(_versions(row))),
            "CREATED": _created,
            "DESCRIPTION": "description",
        }
        show_table(rows, columns, empty="no models yet; `detbuild model create NAME` creates one")


@click.command(cls=Command)
@name_argument
@json_option
@pass_session
def describe(session: Session, /, *, name: str, as_json: bool) -> None:
    """Show a model and its versions."""
    from detbuild.escaping import visible
    from detbuild.store.home import Home
    from detbuild.store.registry import read_model

    document = _document(read_model(Home.open(session.home), name))
    if as_json:
        show_json(document)
        return
    click.echo(f"model {visible(name)}  {'archived' if document['archived'] else ''}".rstrip())
    for key in ("description", "labels", "metadata"):
        if document[key]:
            value = document[key]
            click.echo(
                f"{key:<12} {visible(value if isinstance(value, str) else json_text(value, indent=None))}"
            )
    _show_versions(_versions(document), name)


@click.command("list-versions", cls=Command)
@name_argument
@json_option
@csv_option
@pass_session
def list_versions(session: Session, /, *, name: str, as_json: bool, as_csv: bool) -> None:
    """List the versions of a model by number.

    With --json: a list of {"version", "checkpoint", "created", "name", "comment", "notes", "metadata"}.
    """
    from detbuild.store.home import Home
    from detbuild.store.registry import read_model

    rows = _versions(_document(read_model(Home.open(session.home), name)))
    if as_json:
        show_json(rows)
    elif as_csv:
        show_csv(rows)
    else:
        _show_versions(rows, name)


@click.command("register-version", cls=Command)
@name_argument
@click.argument("uuid", metavar="UUID")
@click.option("--name", "version_name", default="", help="A name for the version.")
@click.option("--comment", default="", help="Comment on the version.")
@json_option
@pass_session
def register_version(
    session: Session, /, *, name: str, uuid: str, version_name: str, comment: str, as_json: bool
) -> None:
    """Register a checkpoint as the next version of a model, and print its number.

    A unique prefix of the UUID is enough. Registered checkpoints are never garbage collected.
    """
    from detbuild.checkpoint.source import register_checkpoint
    from detbuild.store.home import Home

    home = Home.open(session.home)
    version = register_checkpoint(home, name, uuid, name=version_name, comment=comment)
    if as_json:
        show_json(_version(version))
    else:
        click.echo(version.version)


@click.command(cls=Command)
@name_argument
@click.option(
    "--version", "number", type=click.IntRange(min=1), metavar="N", help="Delete this version only."
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
@pass_session
def delete(session: Session, /, *, name: str, number: int | None, yes: bool) -> None:
    """Delete a model or one version from the registry; its checkpoints are kept."""
    from detbuild.cli.experiments import confirm
    from detbuild.store.home import Home
    from detbuild.store.registry import delete_model, delete_version, read_model

    home = Home.open(session.home)
    model = read_model(home, name)
    if number is None:
        confirm(f"permanently delete model {name} with {counted(len(model.versions), 'version')}", yes=yes)
        delete_model(home, name)
    else:
        model.version(number)
        confirm(f"permanently delete version {number} of model {name}", yes=yes)
        delete_version(home, name, number)
    click.echo(f"deleted {name}{'' if number is None else f':{number}'}", err=True)


def _document(model: Model) -> dict[str, object]:
    versions = [_version(one) for one in model.versions]
    document = {**asdict(model), "labels": list(model.labels), "versions": versions}
    del document["last_version"]
    return document


def _version(version: Version) -> dict[str, object]:
    return asdict(version)


def _versions(document: Row) -> list[dict[str, object]]:
    found = document["versions"]
    return found if isinstance(found, list) else []


def _show_versions(rows: list[dict[str, object]], name: str) -> None:
    columns: Columns = {
        "VERSION": "version",
        "CHECKPOINT": "checkpoint",
        "CREATED": _created,
        "NAME": "name",
        "COMMENT": "comment",
    }
    empty = f"no versions yet; `detbuild model register-version {name} UUID` adds one"
    show_table(rows, columns, empty=empty)


def _created(row: Row) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(float(str(row["created"]))))


@click.command(cls=Command)
@name_argument
@file_argument
@pass_session
def create_template(session: Session, /, *, name: str, file: Path) -> None:
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
def describe_template(session: Session, /, *, name: str) -> None:
    """Print a template as written."""
    from detbuild.store.registry import read_template

    click.echo(read_template(_home(session), name), nl=False)


@click.command("list", cls=Command)
@json_option
@csv_option
@click.option("-d", "--details", is_flag=True, help="Include their text.")
@pass_session
def list_templates(session: Session, /, *, as_json: bool, as_csv: bool, details: bool) -> None:
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
