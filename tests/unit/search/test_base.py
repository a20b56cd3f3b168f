from __future__ import annotations

import random as python_random
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from detbuild.config.hyperparameters import leaves
from detbuild.errors import SearchError
from detbuild.search.base import WORST, assembled, cost, value_at
from detbuild.search.method import Began, Create, TrialEnd, TrialEnded, Validated, from_json, to_json
from detbuild.search.preview import Simulator
from tests.unit.search.searches import config_of, equal_results, run, search_of

if TYPE_CHECKING:
    from detbuild.search.method import Action, SearchEvent
    from detbuild.search.preview import Simulation


LENGTH = {"max_length": {"batches": 27}}
ASHA = {**LENGTH, "max_trials": 20, "divisor": 3}
GRID = {"x": {"type": "int", "minval": 0, "maxval": 9, "count": 10}}
PBT = {"population_size": 5, "num_rounds": 4, "length_per_round": {"batches": 3}}
SEARCHES: dict[str, dict[str, object]] = {
    "single": {"name": "single", **LENGTH},
    "random": {"name": "random", "max_trials": 12, "max_concurrent_trials": 3, **LENGTH},
    "grid": {"name": "grid", "max_concurrent_trials": 4, "hyperparameters": GRID, **LENGTH},
    "promotion": {"name": "async_halving", "num_rungs": 3, "max_concurrent_trials": 6, **ASHA},
    "stopping": {"name": "async_halving", "num_rungs": 3, "stop_once": True, **ASHA},
    "adaptive promotion": {"name": "adaptive_asha", **ASHA},
    "adaptive stopping": {"name": "adaptive_asha", "stop_once": True, **ASHA},
    "synchronous": {"name": "sync_halving", "num_rungs": 3, "budget": {"batches": 200}, **LENGTH},
    "adaptive": {"name": "adaptive", "budget": {"batches": 400}, "divisor": 3, **LENGTH},
    "simple": {"name": "adaptive_simple", "max_trials": 14, "divisor": 3, **LENGTH},
    "pbt": {"name": "pbt", **PBT},
}
NEVER_REPLACED = {"single", "grid", "synchronous", "adaptive", "simple", "pbt"}
EVERY = pytest.mark.parametrize("name", SEARCHES)


@pytest.mark.parametrize(
    ("metric", "smaller", "expected"),
    [
        (1.5, True, 1.5),
        (1.5, False, -1.5),
        (None, True, WORST),
        (None, False, WORST),
        (float("nan"), False, WORST),
        (float("inf"), True, WORST),
        (float("-inf"), False, WORST),
    ],
)
def test_a_smaller_cost_is_better_and_no_number_the_worst(
    metric: float | None, smaller: bool, expected: float
) -> None:
    assert cost(metric, 1 if smaller else -1) == expected


def some_world(random: python_random.Random) -> object:
    """Trials that do as they like; now and then one fails, in any of the ways."""

    def world(_create: Create, _length: int) -> float | TrialEnd | None:
        chance = random.random()
        if chance < 0.1:
            return random.choice([end for end in TrialEnd if end is not TrialEnd.COMPLETED])
        return None if chance < 0.15 else random.choice([0.0, 1.0, random.random()])

    return world


@cache
def usual(name: str) -> int:
    """How many trials there are when none fails."""
    return len(run(equal_results, **SEARCHES[name]).creates)


def check(name: str, simulation: Simulation) -> None:
    """What holds of every search, whatever happened."""
    ended: dict[int, TrialEnd] = {}
    for event, actions in simulation.history:
        if isinstance(event, TrialEnded):
            assert event.trial_id not in ended
            ended[event.trial_id] = event.reason
        assert not [action for action in actions if getattr(action, "trial_id", 0) in ended]
    assert [*simulation.creates] == [*range(1, len(simulation.creates) + 1)]
    assert sorted(ended) == [*simulation.creates]
    replaced = 0 if name in NEVER_REPLACED else [*ended.values()].count(TrialEnd.INVALID_HP)
    assert len(simulation.creates) <= usual(name) + replaced
    if name != "pbt":  # fewer parents that live leave fewer copies
        assert len(simulation.creates) == usual(name) + replaced
    for points in simulation.trained.values():
        assert points == sorted(set(points))
        assert points[-1:] <= [27]


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), name=st.sampled_from([*SEARCHES]))
def test_a_thousand_orders_of_events_keep_the_invariants(seed: int, name: str) -> None:
    for index in range(10):
        random = python_random.Random(seed + index)
        simulator = Simulator(search_of(**SEARCHES[name]), some_world(random), random=random)
        simulator.run()
        check(name, simulator.simulation)
        assert simulator.method.progress == 1


def through_the_journal(event: SearchEvent, actions: list[Action]) -> tuple[SearchEvent, list[Action]]:
    return from_json(to_json(event)), [from_json(to_json(action)) for action in actions]


class Life(RuleBasedStateMachine):
    """A search whose controller is restarted at any moment decides as one that never was."""

    def __init__(self) -> None:
        super().__init__()
        self.simulator: Simulator | None = None
        self.progress = 0.0

    @precondition(lambda self: self.simulator is None)
    @rule(name=st.sampled_from([*SEARCHES]), seed=st.integers(0, 9))
    def begin(self, name: str, seed: int) -> None:
        self.name = name
        self.random = python_random.Random(seed)
        self.simulator = Simulator(search_of(**SEARCHES[name]), some_world(self.random), random=self.random)
        self.simulator.tell(Began())

    @precondition(lambda self: self.simulator is not None and not self.simulator.simulation.finished)
    @rule(steps=st.integers(1, 9))
    def go_on(self, steps: int) -> None:
        for _ in range(steps):
            if not self.simulator.simulation.finished:
                self.simulator.step()

    @precondition(lambda self: self.simulator is not None)
    @rule()
    def restart(self) -> None:
        again = search_of(**SEARCHES[self.name])
        for event, actions in self.simulator.simulation.history:
            again.replay(*through_the_journal(event, actions))
        assert again.progress == self.simulator.method.progress
        self.simulator.method = again

    @invariant()
    def progress_never_falls_and_one_is_the_end(self) -> None:
        if self.simulator is None:
            return
        now = self.simulator.method.progress
        assert self.progress <= now <= 1
        if self.simulator.simulation.finished:
            assert now == 1
        self.progress = now


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


def test_a_record_that_differs_cannot_be_continued() -> None:
    create, train, close = search_of("single", **LENGTH).decide(Began())
    other = [replace(create, seed=create.seed + 1), train, close]
    with pytest.raises(SearchError, match="cannot be continued") as caught:
        search_of("single", **LENGTH).replay(Began(), other)
    assert "the experiment's config" in caught.value.hint
    assert caught.value.exit_code == 4
    with pytest.raises(SearchError):
        search_of("single", **LENGTH).replay(Began(), [create, train])


def test_a_record_may_differ_in_the_last_digit_of_a_power() -> None:
    create, *rest = search_of("single", **LENGTH).decide(Began())
    last_digit = {**create.hparams, "log": create.hparams["log"] * (1 + 2e-16)}
    search_of("single", **LENGTH).replay(Began(), [replace(create, hparams=last_digit), *rest])
    other = {**create.hparams, "log": create.hparams["log"] * 1.001}
    with pytest.raises(SearchError):
        search_of("single", **LENGTH).replay(Began(), [replace(create, hparams=other), *rest])


def test_progress_does_not_fall_when_a_result_turns_out_invalid() -> None:
    search = search_of(**SEARCHES["promotion"])
    search.decide(Began())
    search.decide(Validated(trial_id=1, time=3, metric=0.5))
    before = search.progress
    search.decide(TrialEnded(trial_id=1, reason=TrialEnd.INVALID_HP))
    assert search.progress == before > 0


SPACE = {"b": 1, "a": {"z": 2, "y": {"x": 3}, "none": {}}}


def test_leaves_come_in_the_order_of_their_names_and_make_the_whole_again() -> None:
    hyperparameters = config_of("single", hyperparameters=SPACE).hyperparameters
    found = dict(leaves(hyperparameters))
    assert [*found] == [("a", "y", "x"), ("a", "z"), ("b",)]
    values = {path: "/".join(path) for path in found}
    whole = assembled(hyperparameters, values)
    assert whole == {"a": {"none": {}, "y": {"x": "a/y/x"}, "z": "a/z"}, "b": "b"}
    assert {path: value_at(whole, path) for path in found} == values


@pytest.mark.parametrize("path", [("c",), ("b", "x"), ("a", "y", "w")])
def test_what_is_not_there_is_a_key_error(path: tuple[str, ...]) -> None:
    with pytest.raises(KeyError):
        value_at(SPACE, path)
