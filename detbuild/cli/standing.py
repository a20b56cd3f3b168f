"""The progress of a search, folded from its events: trials, best value, rates, time left."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from detbuild.cli.text import number, visible
from detbuild.events import (
    ExperimentContinued,
    ExperimentCreated,
    RunEnded,
    RunRecord,
    RunStarted,
    SearchAdvanced,
    TrialDelayed,
    TrialEnded,
)
from detbuild.store.state import ENDED, WAITING_FOR_SEARCH, Goal, State
from determined._records import Measured, Progress, Training, Validation

if TYPE_CHECKING:
    from collections.abc import Callable

    from detbuild.events import Event
    from determined._records import Record

_ORDER = {State.RUNNING: 0, State.QUEUED: 1, State.WAITING: 2}  # those that have ended follow
_COUNTED = (State.RUNNING, State.QUEUED, State.WAITING, State.ERROR, State.CANCELED)
_MINUTE, _HOUR = 60, 3600


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
