"""The live table of a search on a terminal: as many trials as there is room for, and a line for them all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from detbuild.cli.text import number, visible

if TYPE_CHECKING:
    from rich.console import RenderableType

    from detbuild.cli.standing import Search, Standing

_STYLES = {"running": "cyan", "done": "green", "failed": "red", "waiting": "yellow"}
_OTHER_LINES = 4  # heading, summary, a line of what is left out, the prompt
_NARROW = 70  # columns


def search_table(search: Search, *, width: int, height: int) -> RenderableType:
    """Draw it within a terminal of that many columns and lines, however few."""
    room = max(0, height - _OTHER_LINES)
    trials = search.ordered()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    narrow = width < _NARROW
    metric = visible(search.goal.metric or "metric")
    names = ["trial", "state", f"best {metric}"] + (
        [] if narrow else ["latest", "batch", "", "GPU", "rate", "left"]
    )
    for name in names:
        table.add_column(Text(name, style="bold"), no_wrap=True, overflow="crop")
    for number_, trial in trials[:room]:
        table.add_row(*_cells(search, number_, trial)[: len(names)])
    left_out = len(trials) - min(room, len(trials))
    lines = (
        [Text(f"and {left_out} more", style="dim", no_wrap=True, overflow="crop")]
        if left_out and room
        else []
    )
    summary = Text(search.summary(), style="bold", no_wrap=True, overflow="crop")
    return Group(*([table] if room and trials else []), *lines, summary)


def _cells(search: Search, number_: int, trial: Standing) -> list[Text]:
    state = f"{trial.state}: {visible(trial.why)[:40]}" if trial.why else trial.state
    percent = "" if trial.fraction is None else f"{100 * trial.fraction:.0f} %"
    return [
        Text(str(number_)),
        Text(state, style=_STYLES.get(trial.state, "")),
        Text("" if trial.best is None else number(trial.best)),
        Text("" if trial.latest is None else number(trial.latest)),
        Text(str(trial.steps)),
        Text(percent),
        Text(visible(trial.gpus)),
        Text(trial.rate),
        Text(search.time_left(trial)),
    ]
