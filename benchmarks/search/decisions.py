"""What one decision of successive halving costs, and whether it grows: detbuild, Optuna and Ray Tune.

Run it with `python benchmarks/search/decisions.py [TRIALS]`, in an environment with `optuna` and `ray[tune]`;
what is not installed is left out. Trials report random numbers at the rungs of one search, 100 of them side
by side; a report is answered by "continue", or by the end of the trial and the next one. Nothing is trained.
Machines differ: trust the ratios.
"""

from __future__ import annotations

import random
import sys
import time
from collections import deque
from importlib.util import find_spec
from statistics import median
from typing import TYPE_CHECKING, Protocol

from detbuild.config.parse import config_from_mapping
from detbuild.search.method import Began, Create, Stop, TrialEnd, TrialEnded, Validated
from detbuild.search.registry import search_method

if TYPE_CHECKING:
    from collections.abc import Callable

RUNGS = (4, 16, 64, 256, 1024)
TOGETHER = 100
ROUNDS = 3


class Halving(Protocol):
    """Stops the worse three quarters at each rung."""

    def create(self) -> object:
        """A new trial."""

    def goes_on(self, trial: object, rung: int, metric: float) -> bool:
        """Report at a rung; False: the trial has ended."""


class Ours:
    def __init__(self, trials: int) -> None:
        searcher = {
            "name": "async_halving",
            "metric": "loss",
            "num_rungs": len(RUNGS),
            "max_trials": trials,
            "max_concurrent_trials": TOGETHER,
            "max_length": {"batches": RUNGS[-1]},
            "stop_once": True,
        }
        space = {"x": {"type": "double", "minval": 0, "maxval": 1}}
        config = config_from_mapping({"entrypoint": ["x"], "searcher": searcher, "hyperparameters": space})
        self.search = search_method(config)
        self.created = deque(a.trial_id for a in self.search.decide(Began()) if isinstance(a, Create))

    def create(self) -> object:
        return self.created.popleft()

    def goes_on(self, trial: object, rung: int, metric: float) -> bool:
        assert isinstance(trial, int)
        actions = self.search.decide(Validated(trial_id=trial, time=rung, metric=metric))
        self.created.extend(a.trial_id for a in actions if isinstance(a, Create))
        over = rung == RUNGS[-1] or any(isinstance(a, Stop) for a in actions)
        if over:
            self.search.decide(TrialEnded(trial_id=trial, reason=TrialEnd.COMPLETED))
        return not over


class Optuna:
    def __init__(self, pruner: str) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        made = {
            "SuccessiveHalving": lambda: optuna.pruners.SuccessiveHalvingPruner(
                min_resource=RUNGS[0], reduction_factor=4
            ),
            "Hyperband": lambda: optuna.pruners.HyperbandPruner(
                min_resource=RUNGS[0], max_resource=RUNGS[-1], reduction_factor=4
            ),
        }[pruner]()
        self.study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), pruner=made)
        self.space = {"x": optuna.distributions.FloatDistribution(0, 1)}
        self.pruned = optuna.trial.TrialState.PRUNED

    def create(self) -> object:
        return self.study.ask(self.space)

    def goes_on(self, trial: object, rung: int, metric: float) -> bool:
        trial.report(metric, rung)
        if trial.should_prune():
            self.study.tell(trial, state=self.pruned)
            return False
        if rung == RUNGS[-1]:
            self.study.tell(trial, metric)
            return False
        return True


class Ray:
    def __init__(self) -> None:
        from ray.tune.experiment import Trial
        from ray.tune.schedulers import ASHAScheduler

        self.asha = ASHAScheduler(
            time_attr="t",
            metric="loss",
            mode="min",
            max_t=RUNGS[-1],
            grace_period=RUNGS[0],
            reduction_factor=4,
        )
        self.trial = Trial
        self.random = random.Random(0)

    def create(self) -> object:
        trial = self.trial("x", stub=True, config={"x": self.random.random()})
        self.asha.on_trial_add(None, trial)
        return trial

    def goes_on(self, trial: object, rung: int, metric: float) -> bool:
        result = {"t": rung, "loss": metric, "trial_id": trial.trial_id}
        if rung < RUNGS[-1] and self.asha.on_trial_result(None, trial, result) == "CONTINUE":
            return True
        self.asha.on_trial_complete(None, trial, result)
        return False


def decisions(halving: Halving, trials: int) -> list[tuple[float, bool]]:
    """Microseconds of each decision, and whether it was "continue"; while there are trials to create."""
    chance = random.Random(1)
    running = deque((halving.create(), 0) for _ in range(TOGETHER))
    created, costs = TOGETHER, []
    while created < trials:
        trial, rung = running.popleft()
        metric = chance.random()
        started = time.perf_counter()
        goes_on = halving.goes_on(trial, RUNGS[rung], metric)
        following = None if goes_on else halving.create()
        costs.append((1e6 * (time.perf_counter() - started), goes_on))
        created += not goes_on
        running.append((trial, rung + 1) if goes_on else (following, 0))
    return costs


def main(trials: int) -> None:
    halvings: dict[str, Callable[[], Halving]] = {"detbuild": lambda: Ours(trials)}
    if find_spec("optuna"):
        halvings["Optuna SuccessiveHalving"] = lambda: Optuna("SuccessiveHalving")
        halvings["Optuna Hyperband"] = lambda: Optuna("Hyperband")
    if find_spec("ray"):
        halvings["Ray Tune ASHA"] = Ray
    print(f"{trials} trials, {TOGETHER} at a time; median microseconds a decision, best of {ROUNDS} rounds")
    print(f"{'':26}continue{'end, next':>11}{'first tenth':>13}{'last tenth':>12}{'growth':>8}{'ratio':>8}")
    ours = 0.0
    for name, make in halvings.items():
        rounds = [summary(decisions(make(), trials)) for _ in range(ROUNDS)]
        on, end, first, last, middle = map(min, zip(*rounds, strict=True))
        ours = ours or middle
        print(
            f"{name:26}{on:8.1f}{end:11.1f}{first:13.1f}{last:12.1f}{last / first:8.2f}{middle / ours:8.1f}"
        )


def summary(costs: list[tuple[float, bool]]) -> tuple[float, ...]:
    """Medians: of "continue", of the end of a trial, of the first and the last tenth, of all."""
    every = [cost for cost, _ in costs]
    on, end = (median(cost for cost, goes_on in costs if goes_on is kind) for kind in (True, False))
    tenth = len(costs) // 10
    return on, end, median(every[:tenth]), median(every[-tenth:]), median(every)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
