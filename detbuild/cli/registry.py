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

from detbuild.cli.arguments import pass_client
from detbuild.cli.commands import Command
from detbuild.cli.table import csv_option, json_option, show_csv, show_json, show_table
from detbuild.jsontext import json_text
from detbuild.units import counted

if TYPE_CHECKING:
    from detbuild.api.client import Client
    from detbuild.cli.table import Columns, Row

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
@pass_client
def create(
    client: Client,
    /,
    *,
    name: str,
    description: str,
    metadata: str,
    labels: tuple[str, ...],
    as_json: bool,
) -> None:
    """Create a model in the registry."""
    from detbuild.api.registry import model_document

    try:
        facts = json.loads(metadata)
    except ValueError as error:
        raise click.UsageError(f"--metadata is not valid JSON: {error}") from None
    if not isinstance(facts, dict):
        raise click.UsageError("--metadata is not a JSON object")
    models = client.models
    model = models.create(name, description=description, metadata=facts, labels=labels)
    if as_json:
        show_json(model_document(model))
    else:
        click.echo(name)


@click.command("list", cls=Command)
@click.option("-a", "--all", "archived", is_flag=True, help="Include archived models.")
@json_option
@csv_option
@pass_client
def list_(client: Client, /, *, archived: bool, as_json: bool, as_csv: bool) -> None:
    """List models by name.

    With --json: a list of {"name", "description", "metadata", "labels", "archived", "created", "versions"}.
    """
    from detbuild.api.registry import model_document

    rows = [model_document(one) for one in client.models.all() if archived or not one.archived]
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
@pass_client
def describe(client: Client, /, *, name: str, as_json: bool) -> None:
    """Show a model and its versions."""
    from detbuild.api.registry import model_document
    from detbuild.escaping import visible

    document = model_document(client.models.model(name))
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
@pass_client
def list_versions(client: Client, /, *, name: str, as_json: bool, as_csv: bool) -> None:
    """List the versions of a model by number.

    With --json: a list of {"version", "checkpoint", "created", "name", "comment", "notes", "metadata"}.
    """
    from detbuild.api.registry import model_document

    rows = _versions(model_document(client.models.model(name)))
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
@pass_client
def register_version(
    client: Client, /, *, name: str, uuid: str, version_name: str, comment: str, as_json: bool
) -> None:
    """Register a checkpoint as the next version of a model, and print its number.

    A unique prefix of the UUID is enough. Registered checkpoints are never garbage collected.
    """
    version = client.models.register(name, uuid, version_name=version_name, comment=comment)
    if as_json:
        show_json(asdict(version))
    else:
        click.echo(version.version)


@click.command(cls=Command)
@name_argument
@click.option(
    "--version", "number", type=click.IntRange(min=1), metavar="N", help="Delete this version only."
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
@pass_client
def delete(client: Client, /, *, name: str, number: int | None, yes: bool) -> None:
    """Delete a model or one version from the registry; its checkpoints are kept."""
    from detbuild.cli.experiments import confirm

    models = client.models
    model = models.model(name)
    if number is None:
        confirm(f"permanently delete model {name} with {counted(len(model.versions), 'version')}", yes=yes)
        models.delete(name)
    else:
        model.version(number)
        confirm(f"permanently delete version {number} of model {name}", yes=yes)
        models.delete_version(name, number)
    click.echo(f"deleted {name}{'' if number is None else f':{number}'}", err=True)


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
@pass_client
def create_template(client: Client, /, *, name: str, file: Path) -> None:
    """Create a config template from a file."""
    client.templates.write(name, file, replace=False)
    click.echo(name)


@click.command("set", cls=Command)
@name_argument
@file_argument
@pass_client
def set_(client: Client, /, *, name: str, file: Path) -> None:
    """Create a config template, or replace the one of that name."""
    client.templates.write(name, file)
    click.echo(name)


@click.command(cls=Command)
@name_argument
@pass_client
def describe_template(client: Client, /, *, name: str) -> None:
    """Print a template as written."""
    click.echo(client.templates.read(name), nl=False)


@click.command("list", cls=Command)
@json_option
@csv_option
@click.option("-d", "--details", is_flag=True, help="Include their text.")
@pass_client
def list_templates(client: Client, /, *, as_json: bool, as_csv: bool, details: bool) -> None:
    """List templates by name.

    With --json: a list of {"name", "file"}, with --details "text" too.
    """
    templates = client.templates
    rows = [{"name": name, "file": str(templates.file(name))} for name in templates.names()]
    if details:
        rows = [{**row, "text": templates.read(row["name"])} for row in rows]
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
@pass_client
def remove(client: Client, /, *, name: str) -> None:
    """Remove a template; experiments created with it do not change."""
    client.templates.remove(name)
    click.echo(f"removed {name}", err=True)
