"""Where the lines of events go: plain lines anywhere, a live view of the build on a terminal."""

from __future__ import annotations

import sys
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from detbuild.cli.show import lines_of, step_name
from detbuild.cli.standing import Search
from detbuild.cli.text import line_of_output
from detbuild.events import (
    BuildOutput,
    BuildStep,
    ContextPacked,
    ContextSent,
    Event,
    ExperimentCreated,
    ImagePulling,
    ImageReady,
    RunOutput,
    TrialQueued,
    Warned,
    Working,
    heartbeat,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from detbuild.events import Emit

HEARTBEAT = 30.0  # seconds after which a step that still runs says so
LAST_LINES = 20  # of a failing step
_PROGRESS = (
    ContextPacked,
    ImagePulling,
    BuildStep,
    BuildOutput,
    ContextSent,
    ImageReady,
    TrialQueued,
    Warned,
    Working,
)


@dataclass
class LinesView:
    """One line an event: what was asked for on stdout, progress and hints on stderr."""

    clock: Callable[[], float] = time.monotonic
    output: dict[str, deque[str]] = field(default_factory=dict)  # the last lines of each step that runs
    said: float = float("-inf")
    search: Search = field(default_factory=Search)
    summed_up: float = 0.0  # when the line for all trials was said last

    def emit(self, event: Event) -> None:
        self.search.note(event)
        self._emit(event)
        if len(self.search.trials) > 1 and self.clock() - self.summed_up >= HEARTBEAT:
            self._say(self.search.summary())
            self.summed_up = self.clock()

    def _emit(self, event: Event) -> None:
        match event:
            case BuildOutput(step, line):
                self.output.setdefault(step, deque(maxlen=LAST_LINES)).append(line)
                if self._quiet_for_long():
                    self._say(f"{step_name(step)}  ... {line_of_output(line)}")
            case ImagePulling() | BuildStep(seconds=None, error=""):
                if self._quiet_for_long():
                    self._print(event)
            case BuildStep(error=error) if error:
                self._print(event)
                for line in self.output.pop(event.name, ()):
                    self._say(f"    {line_of_output(line)}")
            case _:
                self._print(event)

    def _quiet_for_long(self) -> bool:
        return self.clock() - self.said >= HEARTBEAT

    def _print(self, event: Event) -> None:
        to_stderr = isinstance(event, _PROGRESS) or (
            isinstance(event, RunOutput) and event.stream == "stderr"
        )
        for line in lines_of(event):
            click.echo(line, err=to_stderr)
        self.said = self.clock()

    def _say(self, line: str) -> None:
        click.echo(line, err=True)
        self.said = self.clock()


def only_id(event: Event) -> None:
    """Print for `-q`: the id on stdout, warnings on stderr, nothing else."""
    if isinstance(event, ExperimentCreated):
        click.echo(event.experiment_id)
    elif isinstance(event, Warned):
        for line in lines_of(event):
            click.echo(line, err=True)


def no_output(event: Event) -> None:
    """Print for commands whose result is the answer: warnings, and what takes long."""
    if isinstance(event, (Warned, Working)):
        for line in lines_of(event):
            click.echo(line, err=True)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Name a step on stderr while it takes long."""
    with heartbeat(no_output, lambda: what):
        yield


@contextmanager
def view(environ: Mapping[str, str], *, quiet: bool = False) -> Iterator[Emit]:
    """Give the `emit` that fits the place the command runs in."""
    if quiet:
        yield only_id
    elif sys.stderr.isatty() and environ.get("TERM") not in {None, "", "dumb"}:
        from detbuild.cli.live import LiveView

        with LiveView() as live:
            yield live.emit
    else:
        yield LinesView().emit
