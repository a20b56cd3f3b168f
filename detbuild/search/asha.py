"""Asynchronous successive halving (ASHA): the best 1/divisor of each rung continue.

Two forms. Promotion: a trial trains to its rung, waits, and is promoted once it is among the best.
Stopping: a trial trains to the top, and is stopped at the first rung where it is not among the best.
Adaptive ASHA runs several brackets of it, because the best early-stopping rate is not known in advance.

Algorithm: Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020; the numbers are
Determined's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from detbuild.config.section import UNITS
from detbuild.search.base import WORST
from detbuild.search.brackets import Rung, Tournament, rung_lengths
from detbuild.search.method import Close, Stop, Train, TrialEnd
from determined._contract.run_info import Length

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detbuild.search.base import Trials
    from detbuild.search.brackets import Bracket
    from detbuild.search.method import Action


@dataclass(frozen=True, kw_only=True, slots=True)
class Halving:
    """Settings of one ASHA search."""

    num_rungs: int
    length: int  # of the top rung
    unit: str  # of `length`; a unit of Length, or the name of the trial's own metric
    divisor: float
    max_trials: int
    max_concurrent_trials: int  # 0: enough for one trial to reach the top

    @property
    def lengths(self) -> list[int]:
        return rung_lengths(self.num_rungs, self.length, self.divisor)

    @property
    def at_start(self) -> int:
        """Number of trials created at the start."""
        if self.max_concurrent_trials:
            return min(self.max_concurrent_trials, self.max_trials)
        enough = self.divisor ** min(self.num_rungs - 1, 64)  # the cap prevents overflow
        return max(int(min(enough, self.max_trials)), 1)


class _AshaPolicy:
    """Common part of both forms: the rung of each trial, and the number of trials."""

    share = 0.0

    def __init__(self, trials: Trials, halving: Halving) -> None:
        self.halving = halving
        self.rungs = [Rung(units) for units in halving.lengths]
        self._trials = trials
        self._level: dict[int, int] = {}  # trial -> the rung it trains for, or reported to last
        self._target_trials = halving.max_trials  # including replaced ones
        self._invalid = self._ended = 0  # disjoint

    @property
    def progress(self) -> float:
        """Share of trials in the lowest rung, which counts for 1/1.2; then the share of ended trials."""
        total = self.halving.max_trials
        seen = len(self.rungs[0])
        return max(seen / (1.2 * total), self._ended / total if seen >= total else 0.0)

    def begin(self) -> list[Action]:
        return [action for _ in range(self.halving.at_start) for action in self._create()]

    def _create(self) -> list[Action]:
        create = self._trials.new()
        self._level[create.trial_id] = 0
        return [create, *self._started(create.trial_id)]

    def _started(self, trial_id: int) -> list[Action]:
        raise NotImplementedError

    def _create_if_needed(self) -> list[Action]:
        return self._create() if len(self._level) < self._target_trials else []

    def _forget(self, trial_id: int) -> None:
        """Remove a trial with invalid hyperparameters; a new one may replace it."""
        for rung in self.rungs[: self._level[trial_id] + 1]:
            rung.forget(trial_id)
        self._invalid += 1
        if self._trials.may_replace():
            self._target_trials += 1


class AsyncHalving(_AshaPolicy):
    """The promotion form.

    If two rungs have the same length, a promoted trial trains nothing and its result counts in both.
    """

    needs_every_validation = False

    def __init__(self, trials: Trials, halving: Halving) -> None:
        super().__init__(trials, halving)
        self._training: set[int] = set()
        self._failed: set[int] = set()  # may still be promoted, with the worst result
        self._closed: set[int] = set()

    def validated(self, trial_id: int, time: float, cost: float) -> list[Action]:  # noqa: ARG002
        if trial_id not in self._training:
            return []
        self._training.remove(trial_id)
        return self._result(trial_id, cost)

    def ended(self, trial_id: int, reason: TrialEnd) -> list[Action]:
        if trial_id in self._closed:
            self._ended += 1
            return []
        self._failed.add(trial_id)
        self._closed.add(trial_id)
        training = trial_id in self._training
        self._training.discard(trial_id)
        if reason is TrialEnd.INVALID_HP:
            self.rungs[self._level[trial_id]].running -= training
            self._forget(trial_id)
            return [*self._create_if_needed(), *self._close_out()]
        self._ended += 1
        return self._result(trial_id, WORST) if training else []

    def _started(self, trial_id: int) -> list[Action]:
        self.rungs[0].running += 1
        return [self._train(trial_id)]

    def _train(self, trial_id: int) -> Action:
        self._training.add(trial_id)
        units = self.rungs[self._level[trial_id]].units
        return Train(trial_id=trial_id, length=Length(self.halving.unit, units))

    def _result(self, trial_id: int, cost: float) -> list[Action]:
        """Record a result, and the results that follow at once in the rungs above."""
        moved: tuple[int, float] | None = (trial_id, cost)
        actions: list[Action] = []
        while moved is not None:
            moved, actions = self._recorded(*moved)
        if not any(isinstance(action, Train) for action in actions):
            actions += self._create_if_needed()
        return actions + self._close_out()

    def _recorded(self, trial_id: int, cost: float) -> tuple[tuple[int, float] | None, list[Action]]:
        """Record a result in its rung; return a result already known for the rung above, and actions."""
        level = self._level[trial_id]
        rung = self.rungs[level]
        rung.running -= 1
        if level + 1 == len(self.rungs):
            return None, self._close([trial_id])
        promoted = rung.promote(trial_id, cost, self.halving.divisor)
        if promoted is None:
            return None, []
        winner, value = promoted
        self._level[winner] = level + 1
        self.rungs[level + 1].running += 1
        if winner in self._failed:
            return (winner, WORST), []
        if self.rungs[level + 1].units <= rung.units:
            return (winner, value), []
        return None, [self._train(winner)]

    def _close_out(self) -> list[Action]:
        """Once all trials have reported, close waiting ones, from the lowest rung up to a busy one."""
        actions: list[Action] = []
        if len(self.rungs[0]) < self._target_trials - self._invalid:
            return actions
        for rung in self.rungs:
            if rung.running:
                break
            actions += self._close(rung.close())
        return actions

    def _close(self, trial_ids: list[int]) -> list[Action]:
        closing = [trial_id for trial_id in trial_ids if trial_id not in self._closed]
        self._closed.update(closing)
        return [Close(trial_id=trial_id) for trial_id in closing]


class StoppingHalving(_AshaPolicy):
    """The stopping form: any validation may take a trial into one or several rungs.

    The results of a trial that ends by itself below the top are kept, and a new trial may start.
    """

    needs_every_validation = True

    def __init__(self, trials: Trials, halving: Halving) -> None:
        super().__init__(trials, halving)
        self._left: set[int] = set()  # stopped, or at the top: other trials may start

    def validated(self, trial_id: int, time: float, cost: float) -> list[Action]:
        if trial_id in self._left or self._survives(trial_id, time, cost):
            return []
        self._left.add(trial_id)
        at_end = self._bounded and time >= self.halving.length
        stop: list[Action] = [] if at_end else [Stop(trial_id=trial_id)]
        return stop + self._create_if_needed()

    def ended(self, trial_id: int, reason: TrialEnd) -> list[Action]:
        if trial_id in self._left:
            self._ended += 1
            return []
        self._left.add(trial_id)
        if reason is TrialEnd.INVALID_HP:
            self._forget(trial_id)
            return self._create_if_needed()
        self._ended += 1
        if reason is not TrialEnd.COMPLETED:
            self.rungs[self._level[trial_id]].survives(trial_id, WORST, self.halving.divisor)
        return self._create_if_needed()

    @property
    def _bounded(self) -> bool:
        """Whether the length is in units of training, so that a trial ends there by itself."""
        return self.halving.unit in UNITS

    def _started(self, trial_id: int) -> list[Action]:
        if not self._bounded:
            return [Train(trial_id=trial_id), Close(trial_id=trial_id)]
        units = sorted({rung.units for rung in self.rungs})
        length = Length(self.halving.unit, units.pop())
        return [Train(trial_id=trial_id, length=length, milestones=tuple(units)), Close(trial_id=trial_id)]

    def _survives(self, trial_id: int, time: float, cost: float) -> bool:
        top = len(self.rungs) - 1
        for level in range(self._level[trial_id], top + 1):
            self._level[trial_id] = level
            rung = self.rungs[level]
            if time < rung.units:
                return True
            survives = rung.survives(trial_id, cost, self.halving.divisor)
            if level == top or not survives:
                return False
        return True


def adaptive_asha(
    trials: Trials, brackets: Sequence[Bracket], *, length: int, unit: str, divisor: float, stopping: bool
) -> Tournament:
    """Create one ASHA search per bracket, in either form."""
    form = StoppingHalving if stopping else AsyncHalving
    return Tournament(
        [
            form(
                trials,
                Halving(
                    num_rungs=bracket.num_rungs,
                    length=length,
                    unit=unit,
                    divisor=divisor,
                    max_trials=bracket.max_trials,
                    max_concurrent_trials=bracket.max_concurrent_trials,
                ),
            )
            for bracket in brackets
        ]
    )
