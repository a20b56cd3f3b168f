"""ASHA written down as plainly as its rules read, to be compared with ours. Costs rise with n squared."""

from __future__ import annotations

from dataclasses import dataclass, field

from detbuild.search.base import WORST


@dataclass
class Result:
    trial: int
    cost: float
    promoted: bool = False


@dataclass
class NaivePromotion:
    """What to do is told as ("create", trial), ("train", trial, rung) and ("close", trial)."""

    num_rungs: int
    divisor: float
    max_trials: int
    rungs: list[list[Result]] = field(default_factory=list)
    level: dict[int, int] = field(default_factory=dict)
    outstanding: list[int] = field(default_factory=list)
    failed: set[int] = field(default_factory=set)
    closed: set[int] = field(default_factory=set)
    invalid: int = 0

    def begin(self, count: int) -> list[tuple[object, ...]]:
        self.rungs = [[] for _ in range(self.num_rungs)]
        self.outstanding = [0] * self.num_rungs
        return [action for _ in range(count) for action in self.create()]

    def create(self) -> list[tuple[object, ...]]:
        trial = len(self.level) + 1
        self.level[trial] = 0
        self.outstanding[0] += 1
        return [("create", trial), ("train", trial, 0)]

    def result(self, trial: int, cost: float) -> list[tuple[object, ...]]:
        level = self.level[trial]
        self.outstanding[level] -= 1
        actions: list[tuple[object, ...]] = []
        if level == self.num_rungs - 1:
            if trial not in self.failed:
                self.closed.add(trial)
                actions.append(("close", trial))
        else:
            for winner in self.promotions(self.rungs[level], trial, cost):
                self.level[winner] = level + 1
                self.outstanding[level + 1] += 1
                if winner in self.failed:
                    return self.result(winner, WORST)
                actions.append(("train", winner, level + 1))
        if not actions or actions[0][0] == "close":
            actions += self.create() if len(self.level) - self.invalid < self.max_trials else []
        return actions + self.close_out()

    def promotions(self, rung: list[Result], trial: int, cost: float) -> list[int]:
        old, new = int(len(rung) / self.divisor), int((len(rung) + 1) / self.divisor)
        index = sum(result.cost <= cost for result in rung)
        rung.insert(index, Result(trial, cost, promoted=index < new))
        if index < new:
            return [trial]
        # Determined trains on one that it has closed, when a later result was removed as invalid.
        if new != old and not rung[old].promoted and rung[old].trial not in self.closed:
            rung[old].promoted = True
            return [rung[old].trial]
        return []

    def close_out(self) -> list[tuple[object, ...]]:
        actions: list[tuple[object, ...]] = []
        if len(self.rungs[0]) != self.max_trials:
            return []
        for outstanding, rung in zip(self.outstanding, self.rungs, strict=True):
            if outstanding:
                break
            for result in rung:
                if not result.promoted and result.trial not in self.closed | self.failed:
                    self.closed.add(result.trial)
                    actions.append(("close", result.trial))
        return actions

    def fails(self, trial: int) -> list[tuple[object, ...]]:
        """Only one that is training may."""
        self.failed.add(trial)
        return self.result(trial, WORST)

    def is_invalid(self, trial: int) -> list[tuple[object, ...]]:
        self.failed.add(trial)
        self.invalid += 1
        self.outstanding[self.level[trial]] -= 1
        for rung in self.rungs:
            rung[:] = [result for result in rung if result.trial != trial]
        return self.create()


@dataclass
class NaiveStopping:
    """What to do is told as ("create", trial) and ("stop", trial)."""

    units: list[int]
    divisor: float
    max_trials: int
    rungs: list[list[float]] = field(default_factory=list)
    level: dict[int, int] = field(default_factory=dict)

    def create(self) -> list[tuple[object, ...]]:
        trial = len(self.level) + 1
        self.level[trial] = 0
        return [("create", trial)]

    def begin(self, count: int) -> list[tuple[object, ...]]:
        self.rungs = [[] for _ in self.units]
        return [action for _ in range(count) for action in self.create()]

    def result(self, trial: int, time: float, cost: float) -> list[tuple[object, ...]]:
        for level in range(self.level[trial], len(self.units)):
            self.level[trial] = level
            if time < self.units[level]:
                return []
            index = self.insert(level, cost)
            if level == len(self.units) - 1 or index >= max(int(len(self.rungs[level]) / self.divisor), 1):
                stop = [("stop", trial)] if time < self.units[-1] else []
                return [*stop, *self.create_if_wanted()]
        return []

    def insert(self, level: int, cost: float) -> int:
        index = sum(other < cost for other in self.rungs[level])
        self.rungs[level].insert(index, cost)
        return index

    def fails(self, trial: int) -> list[tuple[object, ...]]:
        self.insert(self.level[trial], WORST)
        return self.create_if_wanted()

    def create_if_wanted(self) -> list[tuple[object, ...]]:
        return self.create() if len(self.level) < self.max_trials else []
