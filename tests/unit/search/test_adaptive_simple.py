from __future__ import annotations

from tests.unit.search.searches import equal_results, run, shapes


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
