"""Previews a search: how many trials train how long."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detbuild.errors import ConfigError
from detbuild.search.async_halving import StoppingHalving
from detbuild.search.base import Search
from detbuild.search.methods import search_method, time_metric
from detbuild.search.random import SingleSegment
from detbuild.search.simulate import simulate
from detbuild.search.sync_halving import SyncHalving
from detbuild.search.tournament import Tournament

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.search.base import Policy


@dataclass(frozen=True, slots=True)
class PlannedTrials:
    """Trials of one bracket that end at the same length; None: their own code decides."""

    bracket: int
    trials: int
    length: int | None


@dataclass(frozen=True, slots=True)
class Preview:
    """The planned trials of a search; lengths are in `unit`."""

    unit: str
    rows: Sequence[PlannedTrials]

    @property
    def trials(self) -> int:
        return sum(row.trials for row in self.rows)

    @property
    def total(self) -> int | None:
        lengths = [None if row.length is None else row.trials * row.length for row in self.rows]
        return None if None in lengths else sum(filter(None, lengths))


def preview(config: ExperimentConfig) -> Preview:
    """Plan for trials that all do equally well and never fail; raise ConfigError for `custom`."""
    if config.searcher.name == "custom":
        raise ConfigError(
            "searcher: custom cannot be previewed; its hook decides as results arrive",
            hint="run it with `detbuild create`",
        )
    search = search_method(config)
    assert isinstance(search, Search)
    policy = search.policy
    brackets = policy.brackets if isinstance(policy, Tournament) else [policy]
    rows = [
        PlannedTrials(number, count, length)
        for number, bracket in enumerate(brackets, 1)
        for length, count in sorted(_planned(bracket).items(), key=lambda item: item[0] or 0)
        if count
    ]
    return Preview(time_metric(config), rows)


def _planned(policy: Policy) -> Mapping[int | None, int]:
    """Return how many trials end at each length."""
    if isinstance(policy, SingleSegment):
        return {policy.length.count if policy.length else None: policy.max_trials}
    if isinstance(policy, StoppingHalving):
        return _stopped(policy)
    if isinstance(policy, SyncHalving):
        sizes = [*(stage.trials for stage in policy.stages), 0]
        return Counter(
            {stage.units: stage.trials - above for stage, above in zip(policy.stages, sizes[1:], strict=True)}
        )
    trained = simulate(Search(policy, smaller_is_better=True), lambda _create, _length: 1.0).trained
    return Counter(points[-1] for points in trained.values())


def _stopped(policy: StoppingHalving) -> Mapping[int | None, int]:
    """As above for the stopping form: the best 1/divisor of each rung continue, at least one."""
    left = policy.halving.max_trials
    ends: Counter[int | None] = Counter()
    for rung in policy.rungs[:-1]:
        survivors = max(int(left / policy.halving.divisor), 1)
        ends[rung.units] += left - survivors
        left = survivors
    ends[policy.rungs[-1].units] += left
    return ends
