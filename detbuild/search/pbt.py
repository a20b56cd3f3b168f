"""Population-based training: each round, perturbed copies of the best trials replace the worst.

Algorithm: Jaderberg et al., "Population Based Training of Neural Networks", 2017, as Determined 0.12 ran it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from detbuild.config.hyperparameters import Double, Int, Log, Nested, draw_one
from detbuild.search.base import WORST
from detbuild.search.method import Close, Train
from determined._contract.run_info import Length

if TYPE_CHECKING:
    from collections.abc import Mapping

    from detbuild.config.hyperparameters import Hyperparameter, RandomState
    from detbuild.config.searcher import Explore, PopulationBased
    from detbuild.search.base import Trials
    from detbuild.search.method import Action, Create, TrialEnd


class Pbt:
    """A search by population-based training; a round ends when no trial is training.

    A copy starts from its parent's newest checkpoint and counts its own length from 0. A failed trial stays
    in the ranking, as the worst, and is neither trained nor copied.
    """

    needs_every_validation = False
    share = 0.0

    def __init__(self, trials: Trials, config: PopulationBased) -> None:
        self._trials, self._config = trials, config
        self._hparams: dict[int, Mapping[str, object]] = {}
        self._request_ids: dict[int, str] = {}
        self._trained: dict[int, int] = {}  # trial -> rounds
        self._costs: dict[int, float] = {}  # of the population
        self._training: set[int] = set()
        self._failed: set[int] = set()
        self._rounds = self._results = 0

    @property
    def progress(self) -> float:
        return self._results / (self._config.population_size * self._config.num_rounds)

    def begin(self) -> list[Action]:
        population = (self._trials.new() for _ in range(self._config.population_size))
        return [action for create in population for action in self._started(create)]

    def validated(self, trial_id: int, time: float, cost: float) -> list[Action]:  # noqa: ARG002
        return self._result(trial_id, cost) if trial_id in self._training else []

    def ended(self, trial_id: int, reason: TrialEnd) -> list[Action]:  # noqa: ARG002
        self._failed.add(trial_id)
        if trial_id in self._training:
            return self._result(trial_id, WORST)
        if trial_id in self._costs:
            self._costs[trial_id] = WORST
        return []

    def _started(self, create: Create) -> list[Action]:
        self._hparams[create.trial_id] = create.hparams
        self._request_ids[create.trial_id] = create.request_id
        return [create, self._train(create.trial_id)]

    def _train(self, trial_id: int) -> Action:
        self._training.add(trial_id)
        self._trained[trial_id] = rounds = self._trained.get(trial_id, 0) + 1
        per_round = self._config.length_per_round
        return Train(trial_id=trial_id, length=Length(per_round.unit, per_round.count * rounds))

    def _result(self, trial_id: int, cost: float) -> list[Action]:
        self._training.remove(trial_id)
        self._results += 1
        self._costs[trial_id] = cost
        if self._training:
            return []
        self._rounds += 1
        ordered = sorted(self._costs, key=lambda trial: (self._costs[trial], self._request_ids[trial]))
        if self._rounds >= self._config.num_rounds:
            return self._close(ordered)
        return self._next_round(ordered)

    def _next_round(self, ordered: list[int]) -> list[Action]:
        fraction = self._config.replace_function.truncate_fraction
        # Failed trials are not copied, so a population may shrink: no trial may be both best and worst.
        count = min(int(fraction * self._config.population_size), len(ordered) // 2)
        kept, worst = ordered[: len(ordered) - count], ordered[len(ordered) - count :]
        self._costs = {trial: WORST for trial in kept if trial in self._failed}
        actions = self._close(worst)
        for trial_id in ordered[:count]:
            if trial_id not in self._failed:
                actions += self._started(self._copy(trial_id))
        return actions + [self._train(trial_id) for trial_id in kept if trial_id not in self._failed]

    def _copy(self, parent: int) -> Create:
        trials, how = self._trials, self._config.explore_function
        hparams = explore(trials.hyperparameters, self._hparams[parent], how, trials.random)
        return trials.new(hparams, parent=parent)

    def _close(self, trial_ids: list[int]) -> list[Action]:
        return [Close(trial_id=trial_id) for trial_id in trial_ids if trial_id not in self._failed]


def explore(
    hyperparameters: Mapping[str, Hyperparameter],
    old: Mapping[str, object],
    how: Explore,
    random: RandomState,
) -> dict[str, object]:
    """Resample or perturb each value, in the order of the names."""
    return {
        name: _explored(hyperparameters[name], old[name], how, random) for name in sorted(hyperparameters)
    }


def _explored(hyperparameter: Hyperparameter, value: object, how: Explore, random: RandomState) -> object:
    if isinstance(hyperparameter, Nested) and isinstance(value, dict):
        return explore(hyperparameter.root, value, how, random)
    if random.uniform(0, 1) < how.resample_probability:
        return draw_one(hyperparameter, random)
    down = random.uniform(0, 1) < 0.5  # noqa: PLR2004  (equal chances)
    factor = 1 - how.perturb_factor if down else 1 + how.perturb_factor
    match hyperparameter, value:
        case Int(minval=low, maxval=high), int():
            moved = value * factor
            return min(max(math.floor(moved) if down else math.ceil(moved), low), high)
        case Double(minval=low, maxval=high), float():
            return min(max(value * factor, low), high)
        case Log(minval=low, maxval=high, base=base), float():
            ends = sorted((base**low, base**high))
            return min(max(value * factor, ends[0]), ends[1])
    return value
