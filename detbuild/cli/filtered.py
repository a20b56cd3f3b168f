"""Filter the lines of a log by rank, level, stream, container or time."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

import click

from detbuild.cli.terminal import unfiltered
from detbuild.jsontext import json_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.logs import LogFilter, LogLine
    from detbuild.store.state import TrialState

_POLL: Final = 0.2  # seconds between polls of growing files
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


@dataclass(frozen=True, kw_only=True, slots=True)
class LineRange:
    """Which part of a log to show."""

    follow: bool
    head: int | None
    tail: int | None


def log_filter(filters: Mapping[str, object], *, only_stderr: bool) -> LogFilter:
    """Return the filter that the options of a command describe."""
    from detbuild.store.logs import STREAMS, Level, LogFilter

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


def lines_of(
    folder: ExperimentFolder, trial_id: int, selected: LogFilter, part: LineRange
) -> Iterator[tuple[int, LogLine]]:
    """Yield the trial ID and each line."""
    from detbuild.store.logs import TrialLines, some

    lines = TrialLines(folder, selected)
    trial = _trial(folder, trial_id)
    if trial is not None:
        yield from ((trial_id, line) for line in some(lines.new(trial), part.head, part.tail))
    while part.follow and not _over(folder, trial):
        time.sleep(_POLL)
        trial = _trial(folder, trial_id)
        yield from ((trial_id, line) for line in (lines.new(trial) if trial else ()))


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


def _trial(folder: ExperimentFolder, trial_id: int) -> TrialState | None:
    from detbuild.store.state import fold

    return fold(folder.header(), folder.journal()).trials.get(trial_id)


def _over(folder: ExperimentFolder, trial: TrialState | None) -> bool:
    from detbuild.store.state import fold

    return (trial is not None and trial.ended) or fold(folder.header(), folder.journal()).over


def _tuple(value: object) -> tuple[object, ...]:
    return value if isinstance(value, tuple) else ()
