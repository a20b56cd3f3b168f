from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise
from random import Random

import pytest

from detbuild.search.base import Search
from detbuild.search.brackets import Tournament
from detbuild.search.method import Began, Close, Create, Stop, Train, TrialEnd, TrialEnded, Validated
from detbuild.search.preview import simulate
from determined._contract.run_info import Length
from tests.unit.search.searches import by_trial, equal_results, run, rungs, search_of, shapes

ASHA = {"num_rungs": 3, "divisor": 3, "max_trials": 12, "max_length": {"batches": 9000}}
ASCENDING = [index / 100 for index in range(1, 13)]
BOTH = pytest.mark.parametrize("stop_once", [False, True])


def exits(values: list[float], trial: int, rung: int) -> object:
    """As `by_trial`, but one trial ends early in a rung."""
    lengths = [1000, 3000, 9000]

    def world(create: Create, length: int) -> float | TrialEnd:
        if create.trial_id == trial and length == lengths[rung - 1]:
            return TrialEnd.ERRORED
        return values[create.trial_id - 1]

    return world


@pytest.mark.parametrize(
    ("length", "points"),
    [
        ({"batches": 9000}, (1000, 3000, 9000)),
        ({"records": 576000}, (64000, 192000, 576000)),
        ({"epochs": 12}, (1, 4, 12)),
        ({"batches": 90}, (10, 30, 90)),
    ],
)
def test_promotion_with_equal_results(length: dict[str, int], points: tuple[int, ...]) -> None:
    simulation = run(equal_results, "async_halving", **{**ASHA, "max_length": length})
    assert shapes(simulation) == {points[:1]: 8, points[:2]: 3, points: 1}


@pytest.mark.parametrize(
    ("values", "smaller"),
    [(ASCENDING, True), ([*reversed(ASCENDING)], False)],
)
def test_promotion_of_the_first_as_others_get_worse(values: list[float], smaller: bool) -> None:
    settings = {**ASHA, "smaller_is_better": smaller}
    expected = [3, 2, 2, 2, *[1] * 8]
    assert rungs(run(by_trial(values), "async_halving", **settings)) == expected
    early = run(exits(values, trial=3, rung=2), "async_halving", **settings)
    assert rungs(early) == [3, 2, 1, 2, *[1] * 8]  # asked for two, reported one


def test_promotion_as_others_get_better() -> None:
    values = [0.10, 0.11, 0.12, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09]
    simulation = run(exits(values, trial=3, rung=1), "async_halving", **ASHA)
    assert rungs(simulation) == [2, 1, 0, 3, 2, 2, 2, *[1] * 5]


def test_one_rung_trains_all_to_the_top() -> None:
    settings = {**ASHA, "num_rungs": 1, "max_trials": 4}
    assert shapes(run(equal_results, "async_halving", **settings)) == {(9000,): 4}


def test_stopping_as_others_get_worse() -> None:
    settings = {**ASHA, "max_concurrent_trials": 2, "stop_once": True}
    assert rungs(run(by_trial(ASCENDING), "async_halving", **settings)) == [3, *[1] * 11]
    better = run(by_trial(ASCENDING), "async_halving", **settings, smaller_is_better=False)
    assert rungs(better) == [3] * 12


@pytest.mark.parametrize(
    ("smaller", "expected"),
    [(True, [3, 1, 1, 1, 3, 1, 1, 1, 3, 1, 1, 1]), (False, [3, 3, 3, 3, 1, 1, 2, 3, 1, 1, 2, 3])],
)
def test_stopping_with_a_repeated_pattern(smaller: bool, expected: list[int]) -> None:
    simulation = run(
        by_trial([0.01, 0.02, 0.03, 0.04] * 3),
        "async_halving",
        **ASHA,
        stop_once=True,
        smaller_is_better=smaller,
    )
    assert rungs(simulation) == expected


def test_stopping_by_time_as_others_get_worse() -> None:
    simulation = run(
        by_trial(ASCENDING),
        "async_halving",
        num_rungs=3,
        divisor=3,
        max_trials=10,
        max_concurrent_trials=3,
        max_time=900,
        time_metric="batches",
    )
    assert shapes(simulation) == {(100,): 9, (100, 300, 900): 1}


@pytest.mark.parametrize(("concurrent", "at_start"), [(5, 5), (0, 9), (16, 12)])
@BOTH
def test_so_many_are_created_at_once(concurrent: int, at_start: int, stop_once: bool) -> None:
    search = search_of("async_halving", **ASHA, max_concurrent_trials=concurrent, stop_once=stop_once)
    assert sum(isinstance(action, Create) for action in search.decide(Began())) == at_start


def test_a_promoted_trial_goes_on_to_the_next_length_in_total() -> None:
    search = search_of("async_halving", **ASHA, max_concurrent_trials=3)
    assert not search.needs_every_validation
    begun = search.decide(Began())
    assert begun[1] == Train(trial_id=1, length=Length("batches", 1000))
    assert not [action for action in begun if isinstance(action, Close)]
    created = [search.decide(Validated(trial_id=trial, time=1000, metric=trial)) for trial in (1, 2)]
    assert [actions[0].trial_id for actions in created] == [4, 5]
    promoted = search.decide(Validated(trial_id=3, time=1000, metric=3))
    assert promoted == [Train(trial_id=1, length=Length("batches", 3000))]


def test_a_trial_that_is_stopped_has_milestones_below_its_top() -> None:
    search = search_of("async_halving", **ASHA, stop_once=True, max_concurrent_trials=2)
    assert search.needs_every_validation
    length = Length("batches", 9000)
    expected = [Train(trial_id=1, length=length, milestones=(1000, 3000)), Close(trial_id=1)]
    assert search.decide(Began())[1:3] == expected
    assert search.decide(Validated(trial_id=1, time=999, metric=1)) == []
    assert search.decide(Validated(trial_id=1, time=1500, metric=1)) == []
    stop, create, *_ = search.decide(Validated(trial_id=2, time=1000, metric=2))
    assert stop == Stop(trial_id=2)
    assert isinstance(create, Create)
    assert search.decide(Validated(trial_id=2, time=2000, metric=0)) == []


def test_one_report_may_pass_several_rungs() -> None:
    search = search_of("async_halving", **ASHA, stop_once=True, max_concurrent_trials=2)
    search.decide(Began())
    search.decide(Validated(trial_id=1, time=4000, metric=1))
    actions = search.decide(Validated(trial_id=2, time=4000, metric=0.5))
    assert actions == []
    (create, *_) = search.decide(Validated(trial_id=2, time=9000, metric=0.5))
    assert isinstance(create, Create)  # it ends at its length by itself, so it needs no Stop


def test_a_metric_of_the_trials_own_as_time_leaves_the_length_open() -> None:
    search = search_of(
        "async_halving", num_rungs=2, divisor=4, max_trials=1, max_time=8, time_metric="episodes"
    )
    assert search.decide(Began())[1:] == [Train(trial_id=1), Close(trial_id=1)]
    assert search.decide(Validated(trial_id=1, time=2.0, metric=1)) == []
    assert search.decide(Validated(trial_id=1, time=8.0, metric=1)) == [Stop(trial_id=1)]


@BOTH
def test_no_number_is_the_worst_result(stop_once: bool) -> None:
    values = [None, float("nan"), *[1e300] * 10]
    simulation = run(by_trial(values), "async_halving", **ASHA, stop_once=stop_once, max_concurrent_trials=0)
    if stop_once:
        assert rungs(simulation)[2] == 3
    else:
        assert rungs(simulation)[:3] == [1, 1, 3]


@BOTH
def test_invalid_hyperparameters_are_replaced_and_not_counted(stop_once: bool) -> None:
    def world(create: Create, length: int) -> float | TrialEnd:
        return TrialEnd.INVALID_HP if create.trial_id in {2, 5} else 1.0

    simulation = run(world, "async_halving", **ASHA, stop_once=stop_once)
    without = run(equal_results, "async_halving", **ASHA, stop_once=stop_once)
    assert shapes(simulation) == shapes(without) + Counter({(): 2})


@pytest.mark.parametrize("invalid", [True, False])
def test_only_what_turns_out_invalid_leaves_no_result(invalid: bool) -> None:
    search = search_of("async_halving", **ASHA, stop_once=True, max_concurrent_trials=2)
    search.decide(Began())
    search.decide(Validated(trial_id=1, time=1000, metric=0.1))
    reason = TrialEnd.INVALID_HP if invalid else TrialEnd.ERRORED
    search.decide(TrialEnded(trial_id=1, reason=reason))
    actions = search.decide(Validated(trial_id=2, time=1000, metric=0.5))
    assert (actions == []) == invalid  # the best so far goes on


def test_only_what_turns_out_invalid_is_never_promoted() -> None:
    search = search_of("async_halving", **ASHA, max_concurrent_trials=4)
    search.decide(Began())
    search.decide(Validated(trial_id=1, time=1000, metric=0.1))
    search.decide(TrialEnded(trial_id=1, reason=TrialEnd.INVALID_HP))
    search.decide(Validated(trial_id=2, time=1000, metric=0.3))
    assert isinstance(search.decide(Validated(trial_id=3, time=1000, metric=0.4))[0], Create)
    assert search.decide(Validated(trial_id=4, time=1000, metric=0.5)) == [
        Train(trial_id=2, length=Length("batches", 3000))
    ]


@BOTH
def test_all_trials_failing_ends_the_search(stop_once: bool) -> None:
    simulation = run(lambda *_: TrialEnd.ERRORED, "async_halving", **ASHA, stop_once=stop_once)
    assert shapes(simulation) == {(): 12}


def test_a_waiting_trial_that_a_person_kills_is_not_trained_again() -> None:
    search = search_of("async_halving", **ASHA, max_concurrent_trials=3)
    search.decide(Began())
    search.decide(Validated(trial_id=1, time=1000, metric=0.1))
    assert search.decide(TrialEnded(trial_id=1, reason=TrialEnd.CANCELED)) == []
    search.decide(Validated(trial_id=2, time=1000, metric=0.2))
    actions = search.decide(Validated(trial_id=3, time=1000, metric=0.3))
    assert [type(action) for action in actions] == [Create, Train]


def test_a_trial_that_ends_below_the_top_by_itself_gives_its_place_away() -> None:
    search = search_of("async_halving", **ASHA, stop_once=True, max_concurrent_trials=2)
    search.decide(Began())
    actions = search.decide(TrialEnded(trial_id=1, reason=TrialEnd.COMPLETED))
    assert isinstance(actions[0], Create)


def test_equally_long_rungs_are_passed_without_training() -> None:
    settings = {"num_rungs": 4, "divisor": 2, "max_trials": 8, "max_length": {"batches": 2}}
    assert shapes(run(equal_results, "async_halving", **settings)) == {(1,): 7, (1, 2): 1}


def test_by_time_it_is_always_the_stopping_form() -> None:
    search = search_of("async_halving", **ASHA, max_time=90, time_metric="epochs", max_concurrent_trials=1)
    assert search.needs_every_validation
    train = Train(trial_id=1, length=Length("epochs", 90), milestones=(10, 30))
    assert search.decide(Began())[1] == train


@BOTH
def test_ten_thousand_trials_on_a_thousand_slots(stop_once: bool) -> None:
    chance = Random(0)
    settings = {**ASHA, "num_rungs": 5, "divisor": 4, "max_trials": 10_000, "max_concurrent_trials": 1000}
    simulation = run(
        lambda *_: chance.random(), "async_halving", **settings, stop_once=stop_once, random=chance
    )
    reached = [sum(count > rung for count in rungs(simulation)) for rung in range(5)]
    assert reached[0] == 10_000
    for below, above in pairwise(reached):
        # Promotion: all that are among the best in the end. Both: some that were for a while.
        assert above >= (0.15 * below if stop_once else below // 4)
        assert above < 0.4 * below


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
