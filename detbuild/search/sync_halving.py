"""Synchronous successive halving (SHA) of Determined 0.12: rungs of a fixed size, filled once.

The adaptive searches of 0.12 run it in several brackets, sized by a training budget (`adaptive`) or by a
number of trials (`adaptive_simple`). Lengths are cut in whole batches, as later versions did; 0.12 cut them
in steps.

Algorithm: Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization",
AISTATS 2016.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from detbuild.search.base import WORST
from detbuild.search.brackets import Rung, Tournament, even_split, rung_lengths
from detbuild.search.method import Close, Train
from determined._contract.run_info import Length

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detbuild.search.base import Trials
    from detbuild.search.method import Action, TrialEnd


@dataclass(frozen=True, slots=True)
class Stage:
    units: int  # in total
    trials: int


def stages_for_budget(*, num_rungs: int, length: int, budget: int, divisor: float) -> list[Stage]:
    """Plan as many trials as the budget pays for, and a `divisor`-th of them in each rung above."""
    lengths = rung_lengths(num_rungs, length, divisor)
    shares = [max(int(divisor**above), 1) for above in reversed(range(num_rungs))]
    below = [0, *lengths]
    expected = sum((units - less) * share for units, less, share in zip(lengths, below, shares, strict=False))
    trials = [int(budget / expected * share) for share in shares]
    return _stages(lengths, [max(trials[0], 1), *trials[1:]])


def stages_for_trials(*, num_rungs: int, length: int, trials: int, divisor: float) -> list[Stage]:
    """Plan a given number of trials, and a `divisor`-th of them in each rung above."""
    lengths = rung_lengths(num_rungs, length, divisor)
    return _stages(lengths, [int(trials / divisor**level) for level in range(num_rungs)])


def _stages(lengths: Sequence[int], trials: Sequence[int]) -> list[Stage]:
    """Make each rung longer than the one below, with no more trials and at least one."""
    stages = [Stage(lengths[0], max(trials[0], 1))]
    for units, count in zip(lengths[1:], trials[1:], strict=True):
        below = stages[-1]
        stages.append(Stage(max(units, below.units + 1), max(min(count, below.trials), 1)))
    return stages


class SyncHalving:
    """Synchronous halving; the best of a rung are promoted as soon as they are certain.

    A failed trial has the worst result, also in every rung to which it would have been promoted.
    """

    needs_every_validation = False
    share = 0.0

    def __init__(self, trials: Trials, stages: Sequence[Stage], unit: str) -> None:
        self.stages = stages
        self._trials, self._unit = trials, unit
        self._rungs = [Rung(stage.units) for stage in stages]
        self._level: dict[int, int] = {}
        self._training: set[int] = set()
        self._failed: set[int] = set()
        self._units = 0
        below = [0, *(stage.units for stage in stages)]
        self._expected = sum((s.units - less) * s.trials for s, less in zip(stages, below, strict=False))

    @property
    def progress(self) -> float:
        return self._units / self._expected

    def begin(self) -> list[Action]:
        return [action for _ in range(self.stages[0].trials) for action in self._create()]

    def validated(self, trial_id: int, time: float, cost: float) -> list[Action]:  # noqa: ARG002
        if trial_id not in self._training:
            return []
        self._training.remove(trial_id)
        return self._result(trial_id, cost)

    def ended(self, trial_id: int, reason: TrialEnd) -> list[Action]:  # noqa: ARG002
        self._failed.add(trial_id)
        if trial_id not in self._training:
            return []
        self._training.remove(trial_id)
        return self._result(trial_id, WORST)

    def _create(self) -> list[Action]:
        create = self._trials.new()
        self._level[create.trial_id] = 0
        return [create, self._train(create.trial_id)]

    def _train(self, trial_id: int) -> Action:
        self._training.add(trial_id)
        length = Length(self._unit, self.stages[self._level[trial_id]].units)
        return Train(trial_id=trial_id, length=length)

    def _result(self, trial_id: int, cost: float) -> list[Action]:
        actions: list[Action] = []
        moved: int | None = trial_id
        while moved is not None:
            level = self._level[moved]
            self._units += self.stages[level].units - (self.stages[level - 1].units if level else 0)
            if level + 1 == len(self.stages):
                return actions + self._close([moved])
            promoted = self._promoted(level, moved, cost)
            moved = promoted if promoted in self._failed else None
            if promoted is not None and moved is None:
                actions.append(self._train(promoted))
            if len(self._rungs[level]) == self.stages[level].trials:
                actions += self._close(self._rungs[level].close())
            cost = WORST
        return actions

    def _promoted(self, level: int, trial_id: int, cost: float) -> int | None:
        missing = self.stages[level].trials - len(self._rungs[level]) - 1
        best = self.stages[level + 1].trials - missing
        promoted = self._rungs[level].promote_best(trial_id, cost, best)
        if promoted is None:
            return None
        self._level[promoted[0]] = level + 1
        return promoted[0]

    def _close(self, trial_ids: Sequence[int]) -> list[Action]:
        return [Close(trial_id=trial_id) for trial_id in trial_ids if trial_id not in self._failed]


def adaptive(
    trials: Trials, rungs: Sequence[int], *, length: Length, budget: int, divisor: float
) -> Tournament:
    """Split the budget evenly over one bracket per number of rungs."""
    each = budget // len(rungs)
    plans = [
        stages_for_budget(num_rungs=num_rungs, length=length.count, budget=each, divisor=divisor)
        for num_rungs in rungs
    ]
    return Tournament([SyncHalving(trials, plan, length.unit) for plan in plans])


def adaptive_simple(
    trials: Trials, rungs: Sequence[int], *, length: Length, max_trials: int, divisor: float
) -> Tournament:
    """Split the trials evenly over one bracket per number of rungs."""
    shares = even_split(max_trials, len(rungs))
    plans = [
        stages_for_trials(num_rungs=num_rungs, length=length.count, trials=share, divisor=divisor)
        for num_rungs, share in zip(rungs, shares, strict=True)
    ]
    return Tournament([SyncHalving(trials, plan, length.unit) for plan in plans])
