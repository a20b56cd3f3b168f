"""Where the lines of events go: plain lines, or a live view on a terminal."""

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
    TrialDelayed,
    Warned,
    Working,
    heartbeat,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from detbuild.events import Emit

HEARTBEAT = 30.0  # seconds of silence before a running step is printed again
LAST_LINES = 20  # of a failing step
_PROGRESS = (
    ContextPacked,
    ImagePulling,
    BuildStep,
    BuildOutput,
    ContextSent,
    ImageReady,
    TrialDelayed,
    Warned,
    Working,
)


@dataclass
class LinesView:
    """Prints one line per event: results on stdout, progress and hints on stderr."""

    clock: Callable[[], float] = time.monotonic
    output: dict[str, deque[str]] = field(default_factory=dict)  # the last lines of each running step
    last_output: float = float("-inf")
    search: Search = field(default_factory=Search)
    summarized: float = 0.0  # when the summary was last printed

    def emit(self, event: Event) -> None:
        self.search.note(event)
        self._emit(event)
        if len(self.search.trials) > 1 and self.clock() - self.summarized >= HEARTBEAT:
            self._echo(self.search.summary())
            self.summarized = self.clock()

    def _emit(self, event: Event) -> None:
        match event:
            case BuildOutput(step, line):
                self.output.setdefault(step, deque(maxlen=LAST_LINES)).append(line)
                if self._quiet_for_long():
                    self._echo(f"{step_name(step)}  ... {line_of_output(line)}")
            case ImagePulling() | BuildStep(seconds=None, error=""):
                if self._quiet_for_long():
                    self._print(event)
            case BuildStep(error=error) if error:
                self._print(event)
                for line in self.output.pop(event.name, ()):
                    self._echo(f"    {line_of_output(line)}")
            case _:
                self._print(event)

    def _quiet_for_long(self) -> bool:
        return self.clock() - self.last_output >= HEARTBEAT

    def _print(self, event: Event) -> None:
        to_stderr = isinstance(event, _PROGRESS) or (
            isinstance(event, RunOutput) and event.stream == "stderr"
        )
        for line in lines_of(event):
            click.echo(line, err=to_stderr)
        self.last_output = self.clock()

    def _echo(self, line: str) -> None:
        click.echo(line, err=True)
        self.last_output = self.clock()


def only_id(event: Event) -> None:
    """Print for `-q`: the ID on stdout, warnings on stderr, nothing else."""
    if isinstance(event, ExperimentCreated):
        click.echo(event.experiment_id)
    elif isinstance(event, Warned):
        for line in lines_of(event):
            click.echo(line, err=True)


def no_output(event: Event) -> None:
    """Print only warnings and slow steps, for commands that print their own result."""
    if isinstance(event, (Warned, Working)):
        for line in lines_of(event):
            click.echo(line, err=True)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Print a slow step on stderr while it runs."""
    with heartbeat(no_output, lambda: what):
        yield


@contextmanager
def view(environ: Mapping[str, str], *, quiet: bool = False) -> Iterator[Emit]:
    """Return the `emit` for this terminal, pipe or `--quiet`."""
    if quiet:
        yield only_id
    elif sys.stderr.isatty() and environ.get("TERM") not in {None, "", "dumb"}:
        from detbuild.cli.live import LiveView

        with LiveView() as live:
            yield live.emit
    else:
        yield LinesView().emit
