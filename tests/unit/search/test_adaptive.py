from __future__ import annotations

from tests.unit.search.searches import equal_results, run, shapes


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
