"""Asynchronous successive halving (ASHA): with each result in a rung the best 1/divisor of it go on.

Two forms. Promotion: a trial trains to its rung, waits, and goes up when it turns out to be among the best.
Stopping: a trial trains to the top, and is stopped at the first rung where it is not.

Algorithm: Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020; the numbers are
Determined's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from detbuild.config.lengths import UNITS
from detbuild.decisions import Close, Stop, Train, TrialEnd
from detbuild.search.base import WORST
from detbuild.search.rungs import Rung, rung_lengths
from determined._run_info import Length

if TYPE_CHECKING:
    from detbuild.decisions import Action
    from detbuild.search.base import Trials


@dataclass(frozen=True, kw_only=True, slots=True)
class Halving:
    """One ASHA search."""

    num_rungs: int
    length: int  # of the top rung
    unit: str  # of `length`; one that is not of Length is a metric of the trial's own
    divisor: float
    max_trials: int
    max_concurrent_trials: int  # 0: enough for one trial to reach the top

    @property
    def lengths(self) -> list[int]:
        return rung_lengths(self.num_rungs, self.length, self.divisor)

    @property
    def at_start(self) -> int:
        """How many trials are created at once."""
        if self.max_concurrent_trials:
            return min(self.max_concurrent_trials, self.max_trials)
        enough = self.divisor ** min(self.num_rungs - 1, 64)  # the limit keeps the power a number
        return max(int(min(enough, self.max_trials)), 1)


class _Asha:
    """What both forms share: which rung each trial is on its way to, and how many trials count."""

    share = 0.0

    def __init__(self, trials: Trials, halving: Halving) -> None:
        self.halving = halving
        self.rungs = [Rung(units) for units in halving.lengths]
        self._trials = trials
        self._level: dict[int, int] = {}  # trial -> the rung it is on its way to, or reported to last
        self._wanted = halving.max_trials  # with those that are replaced
        self._invalid = self._ended = 0  # none is both

    @property
    def progress(self) -> float:
        """Of trials in the lowest rung, with a fifth for what comes after; then of trials that ended."""
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

    def _create_if_wanted(self) -> list[Action]:
        return self._create() if len(self._level) < self._wanted else []

    def _forget(self, trial_id: int) -> None:
        """The trial's hyperparameters were invalid: it had never been, and a fresh one may take its place."""
        for rung in self.rungs[: self._level[trial_id] + 1]:
            rung.forget(trial_id)
        self._invalid += 1
        if self._trials.may_replace():
            self._wanted += 1


class AsyncHalving(_Asha):
    """The promotion form.

    Where two rungs are equally long a promoted trial has nothing to train: its result counts in both.
    """

    needs_every_validation = False

    def __init__(self, trials: Trials, halving: Halving) -> None:
        super().__init__(trials, halving)
        self._training: set[int] = set()
        self._failed: set[int] = set()  # may still be promoted, and then does its worst
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
            return [*self._create_if_wanted(), *self._close_out()]
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
        """Take a result, and whatever follows from it at once in the rungs above."""
        moved: tuple[int, float] | None = (trial_id, cost)
        actions: list[Action] = []
        while moved is not None:
            moved, actions = self._placed(*moved)
        if not any(isinstance(action, Train) for action in actions):
            actions += self._create_if_wanted()
        return actions + self._close_out()

    def _placed(self, trial_id: int, cost: float) -> tuple[tuple[int, float] | None, list[Action]]:
        """Place a result in its rung: what is known at once of the rung above, and what is to be done."""
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
        """Once every trial has been seen: close who waits, from the lowest rung up to one that is busy."""
        actions: list[Action] = []
        if len(self.rungs[0]) < self._wanted - self._invalid:
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


class StoppingHalving(_Asha):
    """The stopping form: any validation may take a trial into a rung, or into several at once.

    A trial that ends below the top by its own will leaves its results, and its place to the next one.
    """

    needs_every_validation = True

    def __init__(self, trials: Trials, halving: Halving) -> None:
        super().__init__(trials, halving)
        self._left: set[int] = set()  # stopped, or at the top: their places are given away

    def validated(self, trial_id: int, time: float, cost: float) -> list[Action]:
        if trial_id in self._left or self._goes_on(trial_id, time, cost):
            return []
        self._left.add(trial_id)
        runs_out = self._bounded and time >= self.halving.length
        stop: list[Action] = [] if runs_out else [Stop(trial_id=trial_id)]
        return stop + self._create_if_wanted()

    def ended(self, trial_id: int, reason: TrialEnd) -> list[Action]:
        if trial_id in self._left:
            self._ended += 1
            return []
        self._left.add(trial_id)
        if reason is TrialEnd.INVALID_HP:
            self._forget(trial_id)
            return self._create_if_wanted()
        self._ended += 1
        if reason is not TrialEnd.COMPLETED:
            self.rungs[self._level[trial_id]].survives(trial_id, WORST, self.halving.divisor)
        return self._create_if_wanted()

    @property
    def _bounded(self) -> bool:
        """Whether a trial can be told its length, so that it ends there by itself."""
        return self.halving.unit in UNITS

    def _started(self, trial_id: int) -> list[Action]:
        if not self._bounded:
            return [Train(trial_id=trial_id), Close(trial_id=trial_id)]
        units = sorted({rung.units for rung in self.rungs})
        length = Length(self.halving.unit, units.pop())
        return [Train(trial_id=trial_id, length=length, milestones=tuple(units)), Close(trial_id=trial_id)]

    def _goes_on(self, trial_id: int, time: float, cost: float) -> bool:
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
