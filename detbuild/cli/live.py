"""The live view: running build steps with their last lines, or the table of a search."""

from __future__ import annotations

import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live as Region
from rich.text import Text

from detbuild.cli.search_table import search_table
from detbuild.cli.show import lines_of, step_name
from detbuild.cli.standing import Search
from detbuild.cli.terminal import unfiltered
from detbuild.cli.text import line_of_output
from detbuild.cli.views import LinesView
from detbuild.events import (
    BuildOutput,
    BuildStep,
    Event,
    ExperimentEnded,
    ImagePulling,
    RunEnded,
    RunOutput,
    RunRecord,
    RunStarted,
    SearchAdvanced,
    TrialDelayed,
    TrialEnded,
    Working,
)

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import RenderableType
SHOWN_LINES = 3  # of each running step


@dataclass
class Running:
    since: float
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=SHOWN_LINES))


class LiveView:
    """Shows builds and searches live on a terminal, and all other events as lines."""

    def __init__(self) -> None:
        # Drawing needs control sequences, so it bypasses the terminal filter; its text is escaped before.
        self.console = Console(file=unfiltered(sys.stderr), highlight=False)  # honours NO_COLOR
        self.plain = LinesView()
        self.running: dict[str, Running] = {}
        self.pulling = ""
        self.region: Region | None = None
        self.search = Search()

    def __enter__(self) -> LiveView:  # noqa: PYI034  (never subclassed)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def emit(self, event: Event) -> None:
        self.search.note(event)
        match event:
            case TrialDelayed() | RunStarted() | RunRecord() | RunOutput() | TrialEnded() if self.searching:
                self._redraw()
            case RunEnded() if self.searching:
                self._search_ended_run(event)
            case ExperimentEnded() if self.searching:
                self._stop()
                self.console.print(self._table())
                self.plain.emit(event)
            case SearchAdvanced() | TrialEnded():
                pass  # only the table shows them
            case ImagePulling() | Working():
                self.pulling = lines_of(event)[0]
                self._redraw()
            case BuildStep(seconds=None, error="") if not event.cached and lines_of(event):
                self.running.setdefault(event.name, Running(time.monotonic()))
                self._redraw()
            case BuildOutput(step, line):
                self.plain.output.setdefault(step, deque(maxlen=20)).append(line)
                if step in self.running:
                    self.running[step].lines.append(line)
            case BuildStep():
                self.running.pop(event.name, None)
                self._above(event)
            case _:
                self._stop()
                self.plain.emit(event)

    @property
    def searching(self) -> bool:
        """Whether there are several trials; a single one is shown line by line."""
        return max(self.search.planned, len(self.search.trials)) > 1

    def _search_ended_run(self, event: RunEnded) -> None:
        if event.exit_code:
            for line in lines_of(event):
                self.console.print(Text(line, style="red"), soft_wrap=True)
        self._redraw()

    def _table(self) -> RenderableType:
        return search_table(self.search, width=self.console.width, height=self.console.height)

    def _above(self, event: BuildStep) -> None:
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
