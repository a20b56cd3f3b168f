"""The live table of a search on a terminal: as many trials as there is room for, and a line for them all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from detbuild.cli.text import number, visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from detbuild.cli.standing import Search, Standing

_STYLES = {"running": "cyan", "done": "green", "failed": "red", "waiting": "yellow", "stopped": "magenta"}
_OTHER_LINES = 4  # heading, summary, a line of what is left out, the prompt
_NARROW = 70  # columns
_ALWAYS = 3  # columns that a narrow terminal has too, besides what a trial waits for


def search_table(search: Search, *, width: int, height: int) -> RenderableType:
    """Draw it within a terminal of that many columns and lines, however few."""
    room = max(0, height - _OTHER_LINES)
    trials = search.ordered()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    rows = [_cells(search, number_, trial) for number_, trial in trials[:room]]
    shown = _shown(rows, narrow=width < _NARROW)
    names = ("trial", "state", f"best {visible(search.goal.metric or 'metric')}", *_MORE)
    for index in shown:
        table.add_column(Text(names[index], style="bold"), no_wrap=True, overflow="crop")
    for row in rows:
        table.add_row(*(row[index] for index in shown))
    left_out = len(trials) - len(rows)
    lines = (
        [Text(f"and {left_out} more", style="dim", no_wrap=True, overflow="crop")]
        if left_out and room
        else []
    )
    summary = Text(search.summary(), style="bold", no_wrap=True, overflow="crop")
    return Group(*([table] if rows else []), *lines, summary)


_MORE = ("latest", "batch", "", "GPU", "rate", "left", "waits")


def _shown(rows: Sequence[Sequence[Text]], *, narrow: bool) -> list[int]:
    """The columns with something in them; the first ones always."""
    last = _ALWAYS + len(_MORE) - 1
    filled = [index for index in range(_ALWAYS, last + 1) if any(row[index].plain for row in rows)]
    return [*range(_ALWAYS), *(index for index in filled if index == last or not narrow)]


def _cells(search: Search, number_: int, trial: Standing) -> list[Text]:
    percent = "" if trial.fraction is None else f"{100 * trial.fraction:.0f} %"
    return [
        Text(str(number_)),
        Text(trial.state, style=_STYLES.get(trial.state, "")),
        Text("" if trial.best is None else number(trial.best)),
        Text("" if trial.latest is None else number(trial.latest)),
        Text(str(trial.steps)),
        Text(percent),
        Text(visible(trial.gpus)),
        Text(trial.rate),
        Text(search.time_left(trial)),
        Text(visible(trial.why.removeprefix("waits ")), style="dim"),
    ]
