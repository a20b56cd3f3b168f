"""Filter the lines of a log by rank, level, stream, container or time.

`detbuild logs`: a trial's output, byte for byte; with filters, line by line.
"""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Final

import click

from detbuild.cli.arguments import experiments_argument, pass_client, trial_argument
from detbuild.cli.commands import Command
from detbuild.cli.experiments import hint_if_paused
from detbuild.cli.terminal import unfiltered
from detbuild.jsontext import json_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from detbuild.api.client import Client
    from detbuild.api.logs import LogFilter, LogLine

_LEVELS: Final = ("TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def _moment(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    try:
        return float(value)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(value.replace("Z", "+00:00")).timestamp()
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is not a time; expected e.g. 2026-01-31T12:00 or seconds"
        ) from None


def _no_effect(ctx: click.Context, param: click.Parameter, value: object) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"{param.opts[0]} has no effect: all trials run on this host", err=True)


FILTERS: Final = (
    click.option(
        "--rank-id", "ranks", type=int, multiple=True, metavar="N", help="Show lines of rank N only."
    ),
    click.option(
        "--level",
        type=click.Choice(_LEVELS, case_sensitive=False),
        help="Show lines at or above this level, read from the first word of a line.",
    ),
    click.option(
        "--stdtype",
        "stdtypes",
        type=click.Choice(["stdout", "stderr"]),
        multiple=True,
        help="Show this stream only.",
    ),
    click.option(
        "--container-id", "containers", multiple=True, metavar="ID", help="Show this container only."
    ),
    click.option(
        "--timestamp-before",
        "before",
        metavar="TIME",
        callback=_moment,
        help="Show runs that started before TIME only; log lines are not timestamped.",
    ),
    click.option(
        "--timestamp-after",
        "after",
        metavar="TIME",
        callback=_moment,
        help="Show runs that ended after TIME only.",
    ),
    click.option("--agent-id", hidden=True, multiple=True, expose_value=False, callback=_no_effect),
    click.option("--source", hidden=True, multiple=True, expose_value=False, callback=_no_effect),
    click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line, for programs."),
)


def log_filter(filters: Mapping[str, object], *, only_stderr: bool) -> LogFilter:
    """Return the filter that the options of a command describe."""
    from detbuild.api.logs import STREAMS, Level, LogFilter

    level, before, after = filters["level"], filters["before"], filters["after"]
    stdtypes = tuple(map(str, _tuple(filters["stdtypes"])))
    return LogFilter(
        stdtypes=("stderr",) if only_stderr else stdtypes or STREAMS,
        ranks=tuple(int(str(rank)) for rank in _tuple(filters["ranks"])),
        containers=tuple(map(str, _tuple(filters["containers"]))),
        min_level=Level[str(level).upper()] if level else None,
        before=before if isinstance(before, float) else None,
        after=after if isinstance(after, float) else None,
    )


def show_lines(lines: Iterable[tuple[int, LogLine]], *, as_json: bool, only_stdout: bool, raw: bool) -> None:
    """Print lines to the streams they were written to; `raw` bypasses the terminal filter."""
    for trial_id, line in lines:
        if as_json:
            document = {
                "trial": trial_id,
                "run": line.run,
                "container": line.container or None,
                "stdtype": line.stdtype,
                "rank": line.rank,
                "level": line.level.name,
                "message": line.message,
            }
            click.echo(json_text(document, indent=None))
        else:
            stream = sys.stderr if line.stdtype == "stderr" and not only_stdout else sys.stdout
            click.echo(line.message, file=unfiltered(stream) if raw else stream)


def _tuple(value: object) -> tuple[object, ...]:
    return value if isinstance(value, tuple) else ()


def _options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("-f", "--follow", is_flag=True, help="Follow until the trial ends."),
        click.option("--head", type=click.IntRange(min=0), metavar="N", help="Show the first N lines only."),
        click.option("--tail", type=click.IntRange(min=0), metavar="N", help="Show the last N lines only."),
        click.option("--stderr", "only_stderr", is_flag=True, help="Show stderr only, on stdout."),
        click.option("--raw", is_flag=True, help="Pass control sequences to the terminal."),
        *reversed(FILTERS),
    ):
        command = option(command)
    return command


@click.command(cls=Command)
@experiments_argument
@click.option(
    "--trial", "trial_id", type=click.IntRange(min=1), default=1, show_default=True, help="Trial ID."
)
@_options
@pass_client
def logs(client: Client, /, *, experiment_ids: tuple[int, ...], trial_id: int, **options: object) -> None:
    """Print a trial's logs: its stdout on stdout, its stderr on stderr; of several experiments in turn.

    All runs of the trial are printed in order. A terminal gets colours, and other control sequences as text;
    a pipe or a file gets the exact bytes if no filter is given. With --json: one object a line,
    {"trial", "run", "container", "stdtype", "rank", "level", "message"}.
    """
    client.experiments(experiment_ids)
    for experiment_id in experiment_ids:
        if len(experiment_ids) > 1 and not options["as_json"]:
            click.echo(f"==> experiment {experiment_id}, trial {trial_id} <==")
        _write(client, experiment_id, trial_id, **options)  # type: ignore[arg-type]  # click checked them


@click.command("logs", cls=Command)
@trial_argument
@_options
@pass_client
def trial_logs(client: Client, /, *, trial: tuple[int, int], **options: object) -> None:
    """Print a trial's logs: its stdout on stdout, its stderr on stderr.

    TRIAL is EXPERIMENT/TRIAL, e.g. 3/1; a number alone means trial 1 of that experiment.
    """
    _write(client, *trial, **options)  # type: ignore[arg-type]  # click checked them


def _write(
    client: Client,
    experiment_id: int,
    trial_id: int,
    *,
    follow: bool,
    head: int | None,
    tail: int | None,
    only_stderr: bool,
    raw: bool,
    **filters: object,
) -> None:
    from detbuild.api.logs import LineRange

    if head is not None and (tail is not None or follow):
        raise click.UsageError("--head cannot be combined with --tail or --follow")
    experiment = client.experiment(experiment_id)
    if follow:
        hint_if_paused(experiment)
    else:
        experiment.trial(trial_id)
    found, part = experiment.logs(trial_id), LineRange(follow=follow, head=head, tail=tail)
    if any(filters.values()):
        lines = found.lines(log_filter(filters, only_stderr=only_stderr), part)
        shown = ((trial_id, line) for line in lines)
        show_lines(shown, as_json=bool(filters["as_json"]), only_stdout=only_stderr, raw=raw)
        return
    streams = [sys.stdout] if only_stderr else [sys.stdout, sys.stderr]
    names = ["stderr"] if only_stderr else ["stdout", "stderr"]
    sinks = {
        name: (unfiltered(stream) if raw else stream).buffer
        for name, stream in zip(names, streams, strict=True)
    }
    found.copy(sinks, part)
