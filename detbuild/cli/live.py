"""The live view on a terminal: running build steps with their last lines, or the table of a search.

The table has as many trials as fit, and a summary line.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live as Region
from rich.table import Table
from rich.text import Text

from detbuild import events
from detbuild.cli.terminal import echo, unfiltered
from detbuild.escaping import line_of_output, number, visible
from detbuild.progress import LAST_LINES, EventLines, SearchProgress, TrialProgress, lines_of, step_name
from detbuild.store.state import State

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from rich.console import RenderableType


_SHOWN_LINES = 3  # of each running step
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


@dataclass
class _RunningStep:
    since: float
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_SHOWN_LINES))


class LiveView:
    """Shows builds and searches live on a terminal, and all other events as lines."""

    def __init__(self) -> None:
        # Drawing needs control sequences, so it bypasses the terminal filter; its text is escaped before.
        self.console = Console(file=unfiltered(sys.stderr), highlight=False)  # honours NO_COLOR
        self.plain = EventLines(echo)
        self.running: dict[str, _RunningStep] = {}
        self.pulling = ""
        self.region: Region | None = None
        self.search = SearchProgress()

    def __enter__(self) -> LiveView:  # noqa: PYI034  (never subclassed)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def emit(self, event: events.Event) -> None:
        self.search.note(event)
        match event:
            case (
                events.TrialDelayed()
                | events.RunStarted()
                | events.RunRecord()
                | events.RunOutput()
                | events.TrialEnded()
            ) if self.searching:
                self._redraw()
            case events.RunEnded() if self.searching:
                self._search_ended_run(event)
            case events.ExperimentEnded() if self.searching:
                self._stop()
                self.console.print(self._table())
                self.plain.emit(event)
            case events.SearchAdvanced() | events.TrialEnded():
                pass  # only the table shows them
            case events.ImagePulling() | events.Working():
                self.pulling = lines_of(event)[0]
                self._redraw()
            case events.BuildStep(seconds=None, error="") if not event.cached and lines_of(event):
                self.running.setdefault(event.name, _RunningStep(time.monotonic()))
                self._redraw()
            case events.BuildOutput(step, line):
                self.plain.output.setdefault(step, deque(maxlen=LAST_LINES)).append(line)
                if step in self.running:
                    self.running[step].lines.append(line)
            case events.BuildStep():
                self.running.pop(event.name, None)
                self._above(event)
            case _:
                self._stop()
                self.plain.emit(event)

    @property
    def searching(self) -> bool:
        """Whether there are several trials; a single one is shown line by line."""
        return max(self.search.planned, len(self.search.trials)) > 1

    def _search_ended_run(self, event: events.RunEnded) -> None:
        if event.exit_code:
            for line in lines_of(event):
                self.console.print(Text(line, style="red"), soft_wrap=True)
        self._redraw()

    def _table(self) -> RenderableType:
        return search_table(self.search, width=self.console.width, height=self.console.height)

    def _above(self, event: events.BuildStep) -> None:
        style = "red" if event.error else "dim" if event.cached else "green"
        for line in lines_of(event):
            self.console.print(Text(line, style=style), soft_wrap=True)
        if event.error:
            for line in self.plain.output.get(event.name, ()):
                self.console.print(Text(f"    {line_of_output(line)}"), soft_wrap=True)

    def _redraw(self) -> None:
        if self.region is None:
            self.region = Region(
                console=self.console, transient=True, refresh_per_second=4, get_renderable=self._render
            )
            self.region.start()

    def _stop(self) -> None:
        if self.region is not None:
            self.region.stop()
            self.region = None
        self.pulling = ""

    def _render(self) -> RenderableType:
        lines = [Text(self.pulling, no_wrap=True, overflow="ellipsis")] if self.pulling else []
        for name, step in list(self.running.items()):
            seconds = time.monotonic() - step.since
            lines.append(
                Text(f"{seconds:4.0f} s  {step_name(name)}", style="bold", no_wrap=True, overflow="ellipsis")
            )
            lines += [
                Text(f"    {line_of_output(line)}", style="dim", no_wrap=True, overflow="ellipsis")
                for line in list(step.lines)
            ]
        return Group(*lines, *([self._table()] if self.search.trials and self.searching else []))


def search_table(search: SearchProgress, *, width: int, height: int) -> RenderableType:
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


def _below(search: SearchProgress, left_out: int, room: int) -> list[Text]:
    more = Text(f"and {left_out} more", style="dim", no_wrap=True, overflow="crop")
    summary = Text(search.summary(), style="bold", no_wrap=True, overflow="crop")
    return [more, summary] if left_out and room else [summary]


def _shown(rows: Sequence[Sequence[Text]], *, narrow: bool) -> list[int]:
    """Return the columns with content; the first ones always, on a narrow terminal only those."""
    more = () if narrow else range(_ALWAYS, _ALWAYS + len(_MORE))
    return [*range(_ALWAYS), *(index for index in more if any(row[index].plain for row in rows))]


def _cells(search: SearchProgress, number_: int, trial: TrialProgress) -> list[Text]:
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
