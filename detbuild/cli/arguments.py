"""Arguments and options that several commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from detbuild.api.client import Client
from detbuild.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from click.shell_completion import CompletionItem

_DIGITS = 18  # of an ID; Python refuses to parse thousands
_MOST = 100_000  # experiments in one range
_CONFIG_SUFFIXES = {".yaml", ".yml", ".json"}
config_argument = click.argument(
    "config", metavar="CONFIG", type=click.Path(path_type=Path), shell_complete=None
)
directory_argument = click.argument(
    "directory", metavar="[DIR]", default=".", type=click.Path(path_type=Path)
)
overrides_option = click.option(
    "--config",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Set a config field, e.g. --config searcher.max_length.batches=100. May be repeated.",
)
template_option = click.option(
    "--template",
    "templates",
    metavar="NAME",
    multiple=True,
    help="Apply the config on top of a template (name or file). May be repeated; the last one wins.",
)
secrets_option = click.option(
    "--show-secrets", is_flag=True, help="Show secrets and values of environment variables."
)
include_option = click.option(
    "-i",
    "--include",
    "includes",
    metavar="PATH",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Add a file or directory to the context, under its own name. May be repeated.",
)
any_context_option = click.option(
    "--allow-any-context",
    is_flag=True,
    help="Accept a directory of any size as context, even / or the home directory.",
)


def complete_ids(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str | CompletionItem]:
    """Complete experiment IDs, newest first; reads only folder names, to be fast."""
    client = ctx.find_object(Client)
    try:
        home = client.path if client else None
        names = os.listdir(home / "experiments") if home else []  # noqa: PTH208  # allowed: names, and fast
    except OSError:
        return []
    ids = sorted((int(name) for name in names if name.isdecimal()), reverse=True)
    return [str(id_) for id_ in ids if str(id_).startswith(incomplete)]


def trial_reference(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[int, int]:
    """Parse `3/2` as trial 2 of experiment 3, and `3` as its trial 1."""
    experiment_id, _, trial_id = value.partition("/")
    try:
        return int(experiment_id), int(trial_id or 1)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a trial; expected EXPERIMENT/TRIAL, e.g. 3/1") from None


trial_argument = click.argument(
    "trial", metavar="TRIAL", callback=trial_reference, shell_complete=complete_ids
)


def _number(_ctx: click.Context, _param: click.Parameter, value: str) -> int:
    if not _is_number(value) or int(value) < 1:
        raise click.BadParameter(f"{value!r} is not an experiment ID, e.g. 3")
    return int(value)


experiment_argument = click.argument(
    "experiment_id", metavar="ID", callback=_number, shell_complete=complete_ids
)


def _is_number(text: str) -> bool:
    return text.isdecimal() and len(text) <= _DIGITS


def experiment_numbers(values: Sequence[str]) -> tuple[int, ...]:
    """Parse experiment IDs: `1 2 3`, `1,2,3` and `1-3` are the same.

    Raises:
        BadParameter: A value is not a number, or a range is reversed.
    """
    found: list[int] = []
    for value in ",".join(values).split(","):
        first, dash, last = value.strip().partition("-")
        if not _is_number(first) or (dash and not _is_number(last)):
            raise click.BadParameter(f"{value!r} is not an experiment ID; expected e.g. 3, 3,4 or 3-5")
        numbers = range(int(first), int(last if dash else first) + 1)
        if not numbers:
            raise click.BadParameter(f"{value!r} is reversed; expected {last}-{first}")
        if len(numbers) > _MOST:
            raise click.BadParameter(f"{value!r} names more than {_MOST} experiments")
        found += numbers
    return tuple(dict.fromkeys(found))


def _numbers(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> tuple[int, ...]:
    return experiment_numbers(values) if values else ()


experiments_argument = click.argument(
    "experiment_ids", metavar="ID...", nargs=-1, required=True, callback=_numbers, shell_complete=complete_ids
)
some_experiments_argument = click.argument(
    "experiment_ids", metavar="[ID...]", nargs=-1, callback=_numbers, shell_complete=complete_ids
)


def worst(codes: Sequence[int]) -> int:
    """Return the exit code of several experiments: error before cancellation before success."""
    failed = [code for code in codes if code]
    return min(failed, default=0)


def check_config_file(path: Path) -> None:
    """Check that the config is a file; suggest the nearest name if it does not exist.

    Raises:
        ConfigError: It is a directory or does not exist.
    """
    if path.is_dir():  # allowed: the user names it
        raise ConfigError(
            f"{path} is a directory, not an experiment config",
            hint="pass the config first, then the directory: `CONFIG DIR`",
        )
    if not path.exists():  # allowed: the user names it
        near = _near_config(path)
        hint = f"did you mean `{near}`?" if near else ""
        raise ConfigError(f"cannot read the experiment config {path}: No such file or directory", hint=hint)


def _near_config(path: Path) -> Path | None:
    """Return the config file in the same directory with the most similar name."""
    try:
        there = path.parent.iterdir()  # allowed: the user names it
        names = [one.name for one in there if one.suffix in _CONFIG_SUFFIXES]
    except OSError:
        return None
    import difflib

    near = difflib.get_close_matches(path.name, names, n=1)
    return path.with_name(near[0]) if near else None


pass_client = click.make_pass_decorator(Client)
