"""The live table of a search on a terminal: as many trials as fit, and a summary line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from detbuild.cli.text import number, visible
from detbuild.store.state import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from detbuild.cli.standing import Search, TrialProgress

_STYLES = {
    State.RUNNING: "cyan",
    State.COMPLETED: "green",
    State.ERROR: "red",
    State.QUEUED: "yellow",
    State.WAITING: "yellow",
    State.CANCELED: "magenta",
}
_OTHER_LINES = 4  # heading, summary, the count of trials that do not fit, the prompt
_NARROW = 70  # columns
_WIDE = 100
_GAP = 2  # blanks between two columns
_ALWAYS = 3  # columns that a narrow terminal shows too
_MORE = ("latest", "batch", "", "GPU", "rate", "left")
_REASON = 12  # minimum columns of the reason


def search_table(search: Search, *, width: int, height: int) -> RenderableType:
    """Draw the table within a terminal of `width` columns and `height` lines."""
    room = max(0, height - _OTHER_LINES)
    trials = search.ordered()[:room]
    narrow = width < _NARROW
    best = "best" if width < _WIDE else f"best {visible(search.goal.metric or 'metric')}"
    names = ("trial", "state", best, *_MORE)
    rows = [_cells(search, number_, trial) for number_, trial in trials]
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    for index in _shown(rows, narrow=narrow):
        cells = [Text(names[index], style="bold"), *(row[index] for row in rows)]
        table.add_column(cells[0], no_wrap=True, overflow="crop", min_width=max(map(len, cells)))
    reasons = [Text(visible(trial.why), style="dim") for _, trial in trials]
    left = width - sum((column.min_width or 0) + _GAP for column in table.columns)
    shows_reasons = any(reason.plain for reason in reasons) and left >= _REASON
    if shows_reasons:
        table.add_column(Text("reason", style="bold"), no_wrap=True, overflow="ellipsis", max_width=left)
    for row, reason in zip(rows, reasons, strict=True):
        table.add_row(*(row[i] for i in _shown(rows, narrow=narrow)), *([reason] if shows_reasons else []))
    return Group(*([table] if rows else []), *_below(search, len(search.trials) - len(rows), room))


def _below(search: Search, left_out: int, room: int) -> list[Text]:
    more = Text(f"and {left_out} more", style="dim", no_wrap=True, overflow="crop")
    summary = Text(search.summary(), style="bold", no_wrap=True, overflow="crop")
    return [more, summary] if left_out and room else [summary]


def _shown(rows: Sequence[Sequence[Text]], *, narrow: bool) -> list[int]:
    """Return the columns with content; the first ones always, on a narrow terminal only those."""
    more = () if narrow else range(_ALWAYS, _ALWAYS + len(_MORE))
    return [*range(_ALWAYS), *(index for index in more if any(row[index].plain for row in rows))]


def _cells(search: Search, number_: int, trial: TrialProgress) -> list[Text]:
    percent = "" if trial.fraction is None else f"{100 * trial.fraction:.0f} %"
    return [
        Text(str(number_)),
        Text(trial.state.label, style=_STYLES.get(trial.state, "")),
        Text("" if trial.best is None else number(trial.best)),
        Text("" if trial.latest is None else number(trial.latest)),
        Text(str(trial.steps)),
        Text(percent),
        Text(visible(trial.gpus)),
        Text(trial.rate),
        Text(search.time_left(trial)),
    ]
