from __future__ import annotations

import pytest

from detbuild.search.method import Began, Create, Train, TrialEnd, TrialEnded, Validated
from detbuild.search.sync_halving import Stage, stages_for_budget, stages_for_trials
from determined._contract.run_info import Length
from tests.unit.search.searches import equal_results, run, search_of, shapes

SHA = {"num_rungs": 4, "max_length": {"batches": 800}, "budget": {"batches": 480}, "divisor": 4}


def test_the_budget_pays_for_the_trials() -> None:
    stages = stages_for_budget(num_rungs=4, length=800, budget=480, divisor=4)
    assert stages == [Stage(12, 11), Stage(50, 2), Stage(200, 1), Stage(800, 1)]


def test_each_rung_is_longer_than_the_one_below() -> None:
    assert stages_for_trials(num_rungs=3, length=1, trials=1, divisor=4) == [
        Stage(1, 1),
        Stage(2, 1),
        Stage(3, 1),
    ]


def test_a_budget_too_small_for_one_trial_has_one() -> None:
    assert [stage.trials for stage in stages_for_budget(num_rungs=2, length=800, budget=1, divisor=4)] == [
        1,
        1,
    ]


def test_simulation_with_equal_results() -> None:
    simulation = run(equal_results, "sync_halving", **SHA)
    assert shapes(simulation) == {(12,): 9, (12, 50): 1, (12, 50, 200, 800): 1}


def test_the_best_go_on() -> None:
    simulation = run(lambda create, _: create.trial_id, "sync_halving", **SHA, smaller_is_better=False)
    assert simulation.trained[11] == [12, 50, 200, 800]
    assert simulation.trained[10] == [12, 50]


@pytest.mark.parametrize("reason", [TrialEnd.ERRORED, TrialEnd.INVALID_HP, TrialEnd.CANCELED])
def test_a_failed_trial_is_the_worst_and_is_not_replaced(reason: TrialEnd) -> None:
    def world(create: Create, length: int) -> float | TrialEnd:
        return reason if create.trial_id == 1 and length == 50 else float(create.trial_id)

    simulation = run(world, "sync_halving", **SHA)
    assert simulation.trained[1] == [12]
    assert shapes(simulation) == {(12,): 10, (12, 50, 200, 800): 1}


def test_all_trials_failing_ends_the_search() -> None:
    assert shapes(run(lambda *_: TrialEnd.ERRORED, "sync_halving", **SHA)) == {(): 11}


def test_a_waiting_trial_that_is_killed_does_its_worst_above() -> None:
    search = search_of("sync_halving", **SHA)
    search.decide(Began())
    search.decide(Validated(trial_id=1, time=12, metric=0.1))
    search.decide(TrialEnded(trial_id=1, reason=TrialEnd.CANCELED))
    for trial in range(2, 12):
        search.decide(Validated(trial_id=trial, time=12, metric=trial / 10))
    (train,) = search.decide(Validated(trial_id=2, time=50, metric=1e9))
    assert train == Train(trial_id=2, length=Length("batches", 200))


def test_the_brackets_share_the_budget() -> None:
    simulation = run(
        equal_results,
        "adaptive",
        max_length={"batches": 32},
        budget={"batches": 64},
        max_rungs=2,
        divisor=4,
    )
    assert shapes(simulation) == {(8, 32): 1, (8,): 1, (32,): 1}


def test_the_configs_of_that_time_are_in_steps() -> None:
    simulation = run(equal_results, "adaptive", target_trial_steps=32, step_budget=64, max_rungs=2, divisor=4)
    assert shapes(simulation) == {(800, 3200): 1, (800,): 1, (3200,): 1}


def test_given_rungs_replace_the_mode() -> None:
    settings = {"max_length": {"batches": 32}, "budget": {"batches": 64}, "bracket_rungs": [1, 1]}
    assert shapes(run(equal_results, "adaptive", **settings)) == {(32,): 2}


def test_even_one_trial_is_one_in_each_bracket() -> None:
    simulation = run(
        equal_results,
        "adaptive_simple",
        mode="conservative",
        max_length={"batches": 1},
        max_trials=1,
        max_rungs=3,
        divisor=4,
    )
    assert shapes(simulation) == {(1,): 1, (1, 2): 1, (1, 2, 3): 1}


def test_the_brackets_share_the_trials() -> None:
    # Determined's own case leaves the divisor unset, which counts as one beyond every length.
    simulation = run(
        equal_results,
        "adaptive_simple",
        mode="standard",
        max_length={"batches": 32},
        max_trials=8,
        max_rungs=5,
        divisor=1000,
    )
    assert shapes(simulation) == {(1, 2, 3, 4, 32): 1, (1, 2, 3, 32): 1, (1, 2, 32): 1, (1,): 5}
