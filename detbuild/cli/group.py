"""Groups that import a command when it is called, so that help and usage errors are fast."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Mapping


class Command(click.Command):
    """A command with the option `--debug`, which `__main__` handles."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # passed through
        self.params.append(debug_option())


@dataclass(frozen=True, slots=True)
class Verb:
    """The import path of a command, and its line in the help of its group."""

    target: str  # "module:attribute"
    help: str

    def load(self) -> click.Command:
        module, _, attribute = self.target.partition(":")
        command = getattr(import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{self.target} is not a command")
        return command


@dataclass(frozen=True, slots=True)
class Noun:
    """A group of verbs: `det experiment ...`."""

    help: str
    verbs: Mapping[str, Verb | Noun]
    aliases: Mapping[str, str] = field(default_factory=dict)
    elsewhere: Mapping[str, str] = field(default_factory=dict)  # Determined's verbs -> what to do instead

    def load(self) -> click.Command:
        return LazyGroup(self.verbs, aliases=self.aliases, elsewhere=self.elsewhere, help=self.help)


class LazyGroup(click.Group):
    """A group built from a table of commands."""

    def __init__(
        self,
        table: Mapping[str, Verb | Noun],
        *,
        aliases: Mapping[str, str] | None = None,
        elsewhere: Mapping[str, str] | None = None,
        help: str,  # noqa: A002  (click's own name)
        epilog: str | None = None,
        version: bool = False,
    ) -> None:
        params: list[click.Parameter] = [debug_option(), *([_version_option()] if version else [])]
        super().__init__(help=help, epilog=epilog, params=params, context_settings=CONTEXT_SETTINGS)
        self.table = table
        self.aliases = aliases or {}
        self.elsewhere = elsewhere or {}

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        entry = self.table.get(self.aliases.get(cmd_name, cmd_name))
        return entry.load() if entry else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        command = self.get_command(ctx, args[0])
        if command is None and args[0] == "help":
            return self._help(ctx, args[1:])
        if command is None and not args[0].startswith("-"):
            raise click.UsageError(self._unknown(args[0]), ctx)
        if command is None:
            return super().resolve_command(ctx, args)
        return self.aliases.get(args[0], args[0]), command, args[1:]

    def _help(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Treat `help` as `--help`, and `help COMMAND...` as `COMMAND... --help`."""
        if not args:
            click.echo(ctx.get_help())
            ctx.exit()
        name, command, rest = self.resolve_command(ctx, args)
        return name, command, [*rest, "--help"]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        short = {full: alias for alias, full in self.aliases.items()}
        rows = [
            (f"{name}, {short[name]}" if name in short else name, entry.help)
            for name, entry in self.table.items()
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def _unknown(self, name: str) -> str:
        if name in self.elsewhere:
            return f"`{name}` is not supported: {self.elsewhere[name]}"
        near = difflib.get_close_matches(name, [*self.table, *self.aliases], n=1)
        return f"no such command: {name}" + (f". Did you mean `{near[0]}`?" if near else "")


CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


def debug_option() -> click.Option:
    return click.Option(
        ["--debug"], is_flag=True, expose_value=False, help="Show the traceback of an error.", hidden=True
    )


def _version_option() -> click.Option:
    def show(ctx: click.Context, _param: click.Parameter, value: object) -> None:
        if value:
            from determined._version import __version__

            click.echo(__version__)
            ctx.exit()

    return click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=show,
        help="Show the version.",
    )
