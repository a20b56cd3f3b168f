"""Where the lines of events go: plain lines, or a live view on a terminal.

The live view shows running build steps with their last lines, or the table of a search: as many trials as
fit, and a summary line. Its numbers are folded from the events of the search.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console, Group
from rich.live import Live as Region
from rich.table import Table
from rich.text import Text

from detbuild.cli.terminal import unfiltered
from detbuild.escaping import line_of_output, number, visible
from detbuild.events import (
    BuildOutput,
    BuildStep,
    Event,
    ExperimentContinued,
    ExperimentCreated,
    ExperimentEnded,
    ImagePulling,
    RunEnded,
    RunOutput,
    RunRecord,
    RunStarted,
    SearchAdvanced,
    TrialDelayed,
    TrialEnded,
    Warned,
    Working,
    heartbeat,
)
from detbuild.progress import HEARTBEAT, LAST_LINES, EventLines, lines_of, step_name
from detbuild.store.state import ENDED, WAITING_FOR_SEARCH, Goal, State
from determined._contract.records import Measured, Progress, Record, Training, Validation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

    from rich.console import RenderableType

    from detbuild.events import Emit

SHOWN_LINES = 3  # of each running step
_ORDER = {State.RUNNING: 0, State.QUEUED: 1, State.WAITING: 2}  # those that have ended follow
_COUNTED = (State.RUNNING, State.QUEUED, State.WAITING, State.ERROR, State.CANCELED)
_MINUTE, _HOUR = 60, 3600
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
                self.plain.lines.output.setdefault(step, deque(maxlen=LAST_LINES)).append(line)
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
            for line in self.plain.lines.output.get(event.name, ()):
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


@dataclass
class TrialProgress:
    """One trial; `since` is when its run started, on the clock of the search."""

    state: State = State.QUEUED
    why: str = ""
    steps: int = 0
    fraction: float | None = None
    best: float | None = None
    latest: float | None = None
    gpus: str = ""
    rate: str = ""
    since: float = 0.0
    begun_at: float = 0.0  # the fraction when this run started


@dataclass
class Search:
    """The state of all trials; `goal` and `planned` are read from the experiment's folder.

    `decided` and `share` are those of `SearchAdvanced`.
    """

    clock: Callable[[], float] = time.monotonic
    goal: Goal = field(default_factory=Goal)
    planned: int = 1
    decided: float = 0.0
    share: float = 0.0
    trials: dict[int, TrialProgress] = field(default_factory=dict)

    def note(self, event: Event) -> None:
        match event:
            case ExperimentCreated(folder=folder) | ExperimentContinued(folder=folder):
                self.goal, self.planned = read_plan(Path(folder))
            case TrialDelayed(trial_id, why, running):
                trial = self._trial(trial_id)
                trial.state, trial.why = State.RUNNING if running else State.QUEUED, why
            case RunStarted(trial_id, _, _, gpu_ids):
                trial = self._trial(trial_id)
                trial.state, trial.why, trial.gpus = State.RUNNING, "", ",".join(gpu_ids)
                trial.since, trial.begun_at = self.clock(), trial.fraction or 0.0
            case RunRecord(trial_id, _, record):
                self._record(self._trial(trial_id), record)
            case RunEnded(trial_id, _, _, why, retry):
                trial = self._trial(trial_id)
                if retry:
                    trial.state, trial.why = State.QUEUED, why.partition("\n")[0]
                else:
                    trial.state, trial.why = State.WAITING, WAITING_FOR_SEARCH
            case TrialEnded(trial_id, state):
                trial = self._trial(trial_id)
                trial.state, trial.why = State(state), ""
            case SearchAdvanced(progress, share):
                self.decided, self.share = progress, share
                self.planned = round(1 / share) if share else self.planned
            case _:
                pass

    def _trial(self, number_: int) -> TrialProgress:
        return self.trials.setdefault(number_, TrialProgress())

    def _record(self, trial: TrialProgress, record: Record) -> None:
        match record:
            case Progress(fraction):
                trial.fraction = fraction
            case Training(steps):
                trial.steps = steps
            case Measured("throughput", _, metrics):
                trial.rate = _rate(metrics.get("records_per_second"), metrics.get("batches_per_second"))
            case Validation(steps):
                trial.steps = steps
                trial.latest = self.goal.value(record)
                if trial.latest is not None and (
                    trial.best is None or self._better(trial.latest, trial.best)
                ):
                    trial.best = trial.latest
            case _:
                pass

    def _better(self, one: float, other: float) -> bool:
        return one < other if self.goal.smaller_is_better else one > other

    def ordered(self) -> list[tuple[int, TrialProgress]]:
        """Return trials by state: running, queued, waiting, ended; the best of each first."""
        sign = 1 if self.goal.smaller_is_better else -1

        def key(item: tuple[int, TrialProgress]) -> tuple[int, float, int]:
            best = float("inf") if item[1].best is None else sign * item[1].best
            return _ORDER.get(item[1].state, len(_ORDER)), best, item[0]

        return sorted(self.trials.items(), key=key)

    def best(self) -> tuple[int, float] | None:
        found = [(number_, trial.best) for number_, trial in self.trials.items() if trial.best is not None]
        sign = 1 if self.goal.smaller_is_better else -1
        return min(found, key=lambda one: (sign * one[1], one[0]), default=None)

    def summary(self) -> str:
        """Return e.g. `3 of 16 ended, 2 running, 1 error; 25 %; best trial 2: validation_loss=0.1`."""
        states = [trial.state for trial in self.trials.values()]
        ended = sum(state in ENDED for state in states)
        parts = [f"{ended} of {max(self.planned, len(states))} ended"]
        parts += [f"{states.count(state)} {state.label}" for state in _COUNTED if state in states]
        text = f"{', '.join(parts)}; {100 * self.progress:.0f} %"
        best = self.best()
        return (
            f"{text}; best trial {best[0]}: {visible(self.goal.metric)}={number(best[1])}" if best else text
        )

    @property
    def progress(self) -> float:
        """Return the progress of the search, 0..1."""
        going = [trial.fraction or 0.0 for trial in self.trials.values() if trial.state not in ENDED]
        return min(1.0, self.decided + self.share * sum(going))

    def time_left(self, trial: TrialProgress) -> str:
        """Estimate the time left from the rate of this run; empty while unknown."""
        if trial.state != State.RUNNING or trial.fraction is None or trial.fraction <= trial.begun_at:
            return ""
        spent = self.clock() - trial.since
        left = spent * (1 - trial.fraction) / (trial.fraction - trial.begun_at)
        return duration(left)


def read_plan(folder: Path) -> tuple[Goal, int]:
    """Return the searcher's goal and planned trials; those of one trial if unreadable."""
    from detbuild.errors import DetbuildError
    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.files import as_map, read_document

    experiment = ExperimentFolder(folder)
    try:
        header = experiment.header()
        searcher = read_document(experiment.config_file, as_map).get("searcher")
        planned = searcher.get("max_trials") if isinstance(searcher, dict) else None
    except (DetbuildError, OSError):
        return Goal(), 1
    return Goal(header.metric, header.smaller_is_better), planned if isinstance(planned, int) else 1


def duration(seconds: float) -> str:
    """Return a duration such as `45 s`, `12 min` or `3 h 20 min`."""
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    return f"{seconds // _HOUR:.0f} h {seconds % _HOUR / _MINUTE:.0f} min"


def _rate(records: object, batches: object) -> str:
    if isinstance(records, (int, float)):
        return f"{records:.4g} records/s"
    return f"{batches:.4g} batches/s" if isinstance(batches, (int, float)) else ""


class LinesView:
    """Prints one line per event, and from time to time a summary of a search.

    Results go to stdout, progress and hints to stderr.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.lines = EventLines(_echo, clock)
        self.search = Search()
        self._clock = clock
        self._summarized = 0.0

    def emit(self, event: Event) -> None:
        self.search.note(event)
        self.lines.emit(event)
        if len(self.search.trials) > 1 and self._clock() - self._summarized >= HEARTBEAT:
            self.lines.progress(self.search.summary())
            self._summarized = self._clock()


def _echo(line: str, is_progress: bool) -> None:  # noqa: FBT001  (as EventLines calls it)
    click.echo(line, err=is_progress)


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
        with LiveView() as live:
            yield live.emit
    else:
        yield LinesView().emit


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
