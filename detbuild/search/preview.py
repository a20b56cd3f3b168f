"""Previews a search: how many trials train how long, with results from a function instead of training."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from detbuild.errors import ConfigError
from detbuild.search.asha import StoppingHalving
from detbuild.search.base import Search
from detbuild.search.brackets import Tournament
from detbuild.search.method import Began, Close, Create, Finish, Stop, Train, TrialEnd, TrialEnded, Validated
from detbuild.search.registry import search_method, time_metric
from detbuild.search.simple import SingleSegment
from detbuild.search.sync_halving import SyncHalving

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from random import Random

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.search.base import Policy
    from detbuild.search.method import Action, SearchEvent, SearchMethod


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
    trained = simulate(Search(policy, sign=1), lambda _create, _length: 1.0).trained
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


if TYPE_CHECKING:
    # The metric of a trial at a total length, or why it ended before.
    ResultOf = Callable[[Create, int], float | TrialEnd | None]


@dataclass(slots=True)
class _Trial:
    create: Create
    points: deque[int] = field(default_factory=deque)  # lengths at which it will validate
    ending: bool = False  # after the last of them
    queued: bool = False


@dataclass(slots=True)
class Simulation:
    """Events and actions of a simulated search; `trained` has the lengths at which each trial validated."""

    creates: dict[int, Create] = field(default_factory=dict)
    trained: dict[int, list[int]] = field(default_factory=dict)
    history: list[tuple[SearchEvent, Sequence[Action]]] = field(default_factory=list)
    finished: bool = False


class Simulator:
    """Replaces the controller, one validation or trial end at a time.

    Args:
        method: a search that has not begun.
        result_of: gives the results of trials.
        random: picks the next trial; None takes them in turn.
        unbounded: lengths at which a trial without a length validates before it ends by itself.
    """

    def __init__(
        self,
        method: SearchMethod,
        result_of: ResultOf,
        *,
        random: Random | None = None,
        unbounded: Sequence[int] = (1,),
    ) -> None:
        self.method = method
        self.simulation = Simulation()
        self._result_of, self._random, self._unbounded = result_of, random, unbounded
        self._trials: dict[int, _Trial] = {}
        self._queue: deque[int] = deque()

    def run(self) -> Simulation:
        """Run to the end; raise RuntimeError if the search leaves trials waiting forever."""
        self.tell(Began())
        while not self.simulation.finished:
            if not self._queue:
                raise RuntimeError("the search has not finished and nothing is left to do")
            self.step()
        return self.simulation

    def step(self) -> None:
        """Train one trial to its next point, or end it."""
        if self._random is not None:
            self._queue.rotate(-self._random.randrange(len(self._queue)))
        trial_id = self._queue.popleft()
        trial = self._trials[trial_id]
        trial.queued = False
        if not trial.points:
            self._end(trial_id, TrialEnd.COMPLETED)
            return
        point = trial.points.popleft()
        outcome = self._result_of(trial.create, point)
        if isinstance(outcome, TrialEnd):
            self._end(trial_id, outcome)
            return
        self.simulation.trained[trial_id].append(point)
        self.tell(Validated(trial_id=trial_id, time=point, metric=outcome))
        self._enqueue(trial_id)

    def tell(self, event: SearchEvent) -> None:
        """Send an event to the search and apply its actions."""
        actions = self.method.decide(event)
        self.simulation.history.append((event, actions))
        for action in actions:
            self._do(action)

    def _end(self, trial_id: int, reason: TrialEnd) -> None:
        del self._trials[trial_id]
        self.tell(TrialEnded(trial_id=trial_id, reason=reason))

    def _do(self, action: Action) -> None:
        if isinstance(action, Finish):
            self.simulation.finished = True
            return
        if isinstance(action, Create):
            self._trials[action.trial_id] = _Trial(action)
            self.simulation.creates[action.trial_id] = action
            self.simulation.trained[action.trial_id] = []
            return
        trial = self._trials[action.trial_id]
        if isinstance(action, Train):
            end = self._unbounded if action.length is None else (*action.milestones, action.length.count)
            trial.points.extend(end)
        elif isinstance(action, Stop):
            trial.points.clear()
        trial.ending |= isinstance(action, (Stop, Close))
        self._enqueue(action.trial_id)

    def _enqueue(self, trial_id: int) -> None:
        trial = self._trials.get(trial_id)
        if trial is not None and not trial.queued and (trial.points or trial.ending):
            trial.queued = True
            self._queue.append(trial_id)


def simulate(method: SearchMethod, result_of: ResultOf, *, random: Random | None = None) -> Simulation:
    """Run a search to its end."""
    return Simulator(method, result_of, random=random).run()
