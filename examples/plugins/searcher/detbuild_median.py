"""The searcher `median`: a trial stops early if it is worse than the median of the others at its length."""

from __future__ import annotations

from statistics import median
from typing import Literal

from detbuild.config.searcher import SearcherConfig
from detbuild.config.section import Positive, TrainingLength
from detbuild.search.base import Trials
from detbuild.search.method import Action, Close, Stop, Train, TrialEnd


class Config(SearcherConfig):
    name: Literal["median"] = "median"
    """Trials that are worse than the median of the others stop early."""
    max_length: TrainingLength
    """Length of training of a trial that is not stopped."""
    max_trials: Positive
    """Number of trials."""
    max_concurrent_trials: Positive = 4
    """Maximum number of concurrent trials."""
    checks: Positive = 4
    """How often each trial is compared with the others, at equal distances."""


def search(config: Config, trials: Trials) -> MedianStopping:
    return MedianStopping(config, trials)


class MedianStopping:
    """A policy: it uses no clock and no randomness but that of `trials`, so that a restart can replay it."""

    needs_every_validation = True

    def __init__(self, config: Config, trials: Trials) -> None:
        self.config, self.trials = config, trials
        self.costs: dict[float, list[float]] = {}  # by length
        self.done = 0

    @property
    def progress(self) -> float:
        return self.done / self.config.max_trials

    @property
    def share(self) -> float:
        return 1 / self.config.max_trials

    def begin(self) -> list[Action]:
        count = min(self.config.max_trials, self.config.max_concurrent_trials)
        return [action for _ in range(count) for action in self.new_trial()]

    def validated(self, trial_id: int, time: float, cost: float) -> list[Action]:
        others = self.costs.setdefault(time, [])
        worse = bool(others) and cost > median(others)
        others.append(cost)
        return [Stop(trial_id=trial_id)] if worse and time < self.config.max_length.count else []

    def ended(self, trial_id: int, reason: TrialEnd) -> list[Action]:
        self.done += 1
        return self.new_trial() if self.trials.count < self.config.max_trials else []

    def new_trial(self) -> list[Action]:
        create = self.trials.new()
        length = self.config.max_length
        points = {length.count * number // self.config.checks for number in range(1, self.config.checks)}
        train = Train(trial_id=create.trial_id, length=length, milestones=tuple(sorted(points - {0})))
        return [create, train, Close(trial_id=create.trial_id)]
