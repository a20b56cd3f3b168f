"""Events as lines of text, and the progress of a search, for the command line and for Python programs.

`lines_of` is the text of one event; `EventLines` decides which lines are worth showing one by one.
`SearchProgress` folds the events of a search to its trials, best value, rates and time left.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from detbuild.codec import as_map
from detbuild.credentials import masked_urls
from detbuild.errors import DetbuildError
from detbuild.escaping import line_of_output, number, visible
from detbuild.events import (
    COMMAND_FAILED,
    BuildOutput,
    BuildStep,
    ContextPacked,
    ContextSent,
    Event,
    ExperimentContinued,
    ExperimentCreated,
    ExperimentEnded,
    ImagePulling,
    ImageReady,
    RunEnded,
    RunOutput,
    RunRecord,
    RunStarted,
    SearchAdvanced,
    TrialDelayed,
    TrialEnded,
    Warned,
    Working,
    short_step,
)
from detbuild.store.experiment_dir import ExperimentFolder, Goal
from detbuild.store.files import read_document
from detbuild.store.state import ENDED, WAITING_FOR_SEARCH, State
from detbuild.units import counted, duration, size
from determined._contract.records import (
    Checkpoint,
    CheckpointRejected,
    Ended,
    Exited,
    Measured,
    Progress,
    Record,
    Restored,
    StageEntered,
    Started,
    Training,
    Validation,
)

if TYPE_CHECKING:
    from collections.abc import Callable

HEARTBEAT = 30.0  # seconds of silence before a running step is printed again
LAST_LINES = 20  # of a failing step
LARGE_CONTEXT = 100_000_000  # bytes; above it the largest entries are named
_ORDER = {State.RUNNING: 0, State.QUEUED: 1, State.WAITING: 2}  # those that have ended follow
_COUNTED = (State.RUNNING, State.QUEUED, State.WAITING, State.ERROR, State.CANCELED)
_LONGEST_METRICS = 600
_LONGEST_NAME = 100
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
class EventLines:
    """Writes one line per event; the output of a build step only after its failure or a long silence."""

    echo: Callable[[str, bool], None]  # writes a line; True for progress and hints, False for results
    clock: Callable[[], float] = time.monotonic
    output: dict[str, deque[str]] = field(default_factory=dict)  # the last lines of each running step
    last_output: float = float("-inf")

    def emit(self, event: Event) -> None:
        match event:
            case BuildOutput(step, line):
                self.output.setdefault(step, deque(maxlen=LAST_LINES)).append(line)
                if self._quiet_for_long():
                    self.progress(f"{step_name(step)}  ... {line_of_output(line)}")
            case ImagePulling() | BuildStep(seconds=None, error=""):
                if self._quiet_for_long():
                    self._write(event)
            case BuildStep(error=error) if error:
                self._write(event)
                for line in self.output.pop(event.name, ()):
                    self.progress(f"    {line_of_output(line)}")
            case _:
                self._write(event)

    def progress(self, line: str) -> None:
        self.echo(line, True)
        self.last_output = self.clock()

    def _quiet_for_long(self) -> bool:
        return self.clock() - self.last_output >= HEARTBEAT

    def _write(self, event: Event) -> None:
        is_progress = isinstance(event, _PROGRESS) or (
            isinstance(event, RunOutput) and event.stream == "stderr"
        )
        for line in lines_of(event):
            self.echo(line, is_progress)
        self.last_output = self.clock()


class SearchLines:
    """Writes lines as `EventLines` does, and from time to time a summary of a search with several trials."""

    def __init__(
        self, echo: Callable[[str, bool], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.lines = EventLines(echo, clock)
        self.search = SearchProgress()
        self._clock = clock
        self._summarized = 0.0

    def emit(self, event: Event) -> None:
        self.search.note(event)
        self.lines.emit(event)
        if len(self.search.trials) > 1 and self._clock() - self._summarized >= HEARTBEAT:
            self.lines.progress(self.search.summary())
            self._summarized = self._clock()


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
class SearchProgress:
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
                self.goal, self.planned = _read_plan(Path(folder))
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
        return self.goal.cost(one) < self.goal.cost(other)

    def ordered(self) -> list[tuple[int, TrialProgress]]:
        """Return trials by state: running, queued, waiting, ended; the best of each first."""

        def key(item: tuple[int, TrialProgress]) -> tuple[int, float, int]:
            best = float("inf") if item[1].best is None else self.goal.cost(item[1].best)
            return _ORDER.get(item[1].state, len(_ORDER)), best, item[0]

        return sorted(self.trials.items(), key=key)

    def best(self) -> tuple[int, float] | None:
        found = [(number_, trial.best) for number_, trial in self.trials.items() if trial.best is not None]
        return min(found, key=lambda one: (self.goal.cost(one[1]), one[0]), default=None)

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


def _read_plan(folder: Path) -> tuple[Goal, int]:
    """Return the searcher's goal and planned trials; those of one trial if unreadable."""
    experiment = ExperimentFolder(folder)
    try:
        header = experiment.header()
        searcher = read_document(experiment.config_file, as_map).get("searcher")
        planned = searcher.get("max_trials") if isinstance(searcher, dict) else None
    except (DetbuildError, OSError):
        return Goal(), 1
    return header.goal, planned if isinstance(planned, int) else 1


def _rate(records: object, batches: object) -> str:
    if isinstance(records, (int, float)):
        return f"{records:.4g} records/s"
    return f"{batches:.4g} batches/s" if isinstance(batches, (int, float)) else ""


def lines_of(event: Event) -> tuple[str, ...]:  # noqa: C901, PLR0911, PLR0912  (one case an event)
    """Return the lines of an event; none for events that only programs need.

    mypy checks that every event has a case.
    """
    match event:
        case Warned(message, hint):
            lines = (f"warning: {message}", *((f"  hint: {hint}",) if hint else ()))
            return tuple(visible(masked_urls(line)) for line in lines)
        case Working(what):
            return (f"... {visible(what)}",)
        case ContextPacked():
            return _context(event)
        case ImagePulling(reference, detail):
            return (f"pulling {visible(reference)}: {visible(detail)}",)
        case BuildStep():
            return _step(event)
        case BuildOutput(_, text):
            return (f"    {line_of_output(text)}",)
        case ContextSent(files, count):
            return (f"sent {counted(files, 'file')} ({size(count)}) to the engine",)
        case ImageReady(image, _, built, seconds):
            return (
                f"image {image[7:19]} "
                + (f"built in {seconds:.1f} s" if built else "unchanged: nothing to build"),
            )
        case ExperimentCreated(experiment_id):
            return (f"Created experiment {experiment_id}",)
        case ExperimentContinued(experiment_id):
            return (f"experiment {experiment_id} continues",)
        case TrialDelayed(trial_id, why, running):
            return (f"trial {trial_id} {state_line(State.RUNNING if running else State.QUEUED, why)}",)
        case RunStarted():
            return (_started(event),)
        case RunRecord(trial_id, _, record):
            return tuple(f"trial {trial_id}  {line}" for line in record_lines(record))
        case RunOutput(trial_id, _, _, text):
            return (f"[trial {trial_id}] {line_of_output(text)}",)
        case RunEnded():
            return _run_ended(event)
        case TrialEnded(trial_id, state, why):
            said = why or state != State.COMPLETED  # by the end of its run
            return () if said else (f"trial {trial_id} {State.COMPLETED.label}",)
        case SearchAdvanced():
            return ()
        case ExperimentEnded(experiment_id, state, why):
            return (f"experiment {experiment_id} {state_line(State(state), why)}",)
        case _:
            return _never(event)


def state_line(state: State, why: str, experiment_id: int | None = None) -> str:
    """`queued: all 2 CPU slots in use`; `paused: detbuild activate 3` where an experiment is given."""
    if state == State.PAUSED and experiment_id is not None:
        why = "; ".join(part for part in (f"detbuild activate {experiment_id}", why) if part)
    return f"{state.label}: {visible(masked_urls(why))}" if why else state.label


def record_lines(record: Record) -> tuple[str, ...]:  # noqa: PLR0911  (one case a record)
    match record:
        case Training(steps, metrics):
            return (f"batch {steps}  {metrics_line(metrics, leave_out='batches')}",)
        case Validation(steps, metrics):
            return (f"batch {steps}  validation  {metrics_line(metrics, leave_out='batches')}",)
        case Measured(group, steps, metrics):
            return (f"batch {steps}  {visible(group)}  {metrics_line(metrics, leave_out='batches')}",)
        case Checkpoint(uuid, steps, resources):
            weight = f"{counted(len(resources), 'file')}, {size(sum(resources.values()))}"
            return (f"batch {steps}  checkpoint {uuid}  {weight}",)
        case Restored(uuid, steps):
            return (f"batch {steps}  restored from checkpoint {uuid}",)
        case CheckpointRejected(uuid, why):
            return (f"checkpoint {uuid} not used: {visible(why)}",)
        case Started() | StageEntered() | Progress() | Ended() | Exited():
            return ()  # RunStarted, metrics and RunEnded say the same
        case _:
            return _never(record)


def metrics_line(metrics: Mapping[str, object], *, leave_out: str = "", room: int = _LONGEST_METRICS) -> str:
    """Return `loss=0.25 accuracy=0.9`; nested metrics get dotted names.

    Args:
        metrics: Names and values.
        leave_out: A name that is not shown.
        room: Characters; metrics beyond it are only counted, except the first one.
    """
    named = [(name, value) for name, value in _flat(metrics) if name != leave_out]
    shown: list[str] = []
    length = 0
    for name, value in named:
        text = f"{visible(name[:_LONGEST_NAME])}={number(value)}"
        length += len(text) + 1
        if shown and length > room:
            return f"{' '.join(shown)} ... and {len(named) - len(shown):,} more"
        shown.append(text)
    return " ".join(shown)


def _flat(metrics: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _context(event: ContextPacked) -> tuple[str, ...]:
    head = f"context: {counted(event.files, 'file')}, {size(event.size)}"
    if event.size < LARGE_CONTEXT:
        return (head,)
    largest = (f"    {size(count):>9}  {visible(path)}" for path, count in event.largest)
    return (f"{head}; the largest are below; .detignore can exclude them", *largest)


def _step(event: BuildStep) -> tuple[str, ...]:
    name = step_name(event.name)
    if event.error:
        # BuildKit repeats the command before it says how it ended.
        return (f"{name}  FAILED: {visible(event.error.rpartition(COMMAND_FAILED)[2])}",)
    if event.name.startswith("[internal]"):
        return ()  # BuildKit's own steps
    if event.seconds is None:
        return (f"{name}  ...",)
    return (f"{name}  " + ("cached" if event.cached else f"{event.seconds:.1f} s"),)


def step_name(name: str) -> str:
    """Return a step's name as one line of a terminal."""
    return visible(short_step(name))


def _started(event: RunStarted) -> str:
    where = f"container {event.container[:12]}" if event.container else "this host's Python"
    gpus = f" on GPU {', '.join(event.gpu_ids)}" if event.gpu_ids else ""
    again = f" (run {event.run})" if event.run else ""
    return f"trial {event.trial_id} started{again} in {visible(where)}{visible(gpus)}"


def _run_ended(event: RunEnded) -> tuple[str, ...]:
    code = f"exit code {event.exit_code}" if event.exit_code else ""
    first, *rest = event.why.splitlines() or [code]
    if not first:  # preempted, or a segment ended; the end of a trial is TrialEnded
        line = f"trial {event.trial_id} stopped after a checkpoint and will continue from it"
        return (line,) if event.retry else ()
    how = "failed" if event.retry else "ended"
    retrying = "; retrying" if event.retry else ""
    reason = visible(first.removeprefix("ended with "))
    return (f"trial {event.trial_id} {how}: {reason}{retrying}", *(f"    {visible(line)}" for line in rest))


def _never(value: NoReturn) -> NoReturn:  # typing.assert_never is not in Python 3.10
    raise AssertionError(value)
