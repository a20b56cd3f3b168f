from __future__ import annotations

from collections import defaultdict

import pytest

from detbuild.decisions import Began, Create
from detbuild.search.base import Search
from detbuild.search.simulate import simulate
from detbuild.search.tournament import Tournament
from tests.unit.search.searches import by_trial, equal_results, run, search_of, shapes

BOTH = pytest.mark.parametrize("stop_once", [False, True])


@BOTH
def test_two_brackets_with_equal_results(stop_once: bool) -> None:
    values = [0.1, 0.2, 0.3, 0.4, 0.5]
    simulation = run(
        by_trial(values),
        "adaptive_asha",
        max_length={"batches": 900},
        max_trials=5,
        max_rungs=2,
        divisor=3,
        stop_once=stop_once,
    )
    assert [tuple(points) for points in simulation.trained.values()] == [
        (300, 900),
        (300,),
        (300,),
        (900,),
        (900,),
    ]


def by_bracket(search: Search, values: list[float]) -> dict[int, list[int]]:
    assert isinstance(search.policy, Tournament)
    simulation = simulate(search, by_trial(values))
    ends = defaultdict(list)
    for trial, points in simulation.trained.items():
        ends[search.policy.bracket_of[trial]].append(points[-1])
    return {bracket: sorted(lengths) for bracket, lengths in ends.items()}


def test_two_brackets_by_time_as_others_get_worse() -> None:
    search = search_of(
        "adaptive_asha",
        max_trials=9,
        max_concurrent_trials=3,
        divisor=3,
        max_time=90,
        time_metric="batches",
    )
    assert isinstance(search, Search)
    expected = {0: [10, 10, 10, 10, 10, 90], 1: [30, 30, 90]}
    assert by_bracket(search, [index / 10 for index in range(9)]) == expected


def test_the_brackets_draw_from_one_generator_in_their_order() -> None:
    created = [
        action
        for action in search_of(
            "adaptive_asha", max_trials=5, max_length={"batches": 900}, max_rungs=2, divisor=3
        ).decide(Began())
        if isinstance(action, Create)
    ]
    alone = [
        action for action in search_of("random", max_trials=5).decide(Began()) if isinstance(action, Create)
    ]
    assert created == alone


@BOTH
def test_given_rungs_replace_the_mode(stop_once: bool) -> None:
    simulation = run(
        equal_results,
        "adaptive_asha",
        max_length={"batches": 16},
        max_trials=3,
        bracket_rungs=[1],
        stop_once=stop_once,
    )
    assert shapes(simulation) == {(16,): 3}
