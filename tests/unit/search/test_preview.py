from __future__ import annotations

import pytest

from detbuild.errors import ConfigError
from detbuild.search.preview import PlannedTrials, Preview, preview
from tests.unit.search.searches import config_of

ASHA = {"max_trials": 10, "max_rungs": 10, "divisor": 3, "max_concurrent_trials": 5}


def ends(found: Preview) -> dict[int | None, int]:
    sums: dict[int | None, int] = {}
    for row in found.rows:
        sums[row.length] = sums.get(row.length, 0) + row.trials
    return sums


def test_the_plan_of_adaptive_asha_is_determineds() -> None:
    found = preview(config_of("adaptive_asha", **ASHA, max_time=900, time_metric="batches"))
    assert found == Preview(
        "batches",
        [
            PlannedTrials(1, 5, 100),
            PlannedTrials(1, 1, 300),
            PlannedTrials(1, 1, 900),
            PlannedTrials(2, 2, 300),
            PlannedTrials(2, 1, 900),
        ],
    )
    assert ends(found) == {100: 5, 300: 3, 900: 2}
    assert (found.trials, found.total) == (10, 3200)


def test_the_plan_of_promotion_is_its_simulation() -> None:
    found = preview(
        config_of("async_halving", num_rungs=3, divisor=3, max_trials=12, max_length={"epochs": 12})
    )
    assert found.unit == "epochs"
    assert ends(found) == {1: 8, 4: 3, 12: 1}


@pytest.mark.parametrize(
    ("searcher", "expected"),
    [
        ({"name": "single", "max_length": {"batches": 5}}, {5: 1}),
        ({"name": "random", "max_trials": 7, "max_length": {"batches": 5}}, {5: 7}),
        ({"name": "optuna", "max_trials": 7, "max_length": {"batches": 5}}, {5: 7}),
        ({"name": "random", "max_trials": 7}, {None: 7}),
        ({"name": "grid", "hyperparameters": {"x": {"type": "categorical", "vals": [1, 2]}}}, {None: 2}),
        (
            {
                "name": "sync_halving",
                "num_rungs": 4,
                "budget": {"batches": 480},
                "max_length": {"batches": 800},
            },
            {12: 9, 50: 1, 800: 1},
        ),
        (
            {"name": "pbt", "population_size": 2, "num_rounds": 3, "length_per_round": {"batches": 4}},
            {12: 2},
        ),
    ],
)
def test_plans_of_other_searches(searcher: dict[str, object], expected: dict[int | None, int]) -> None:
    assert ends(preview(config_of(**searcher))) == expected


def test_a_sum_of_open_lengths_is_open() -> None:
    assert preview(config_of("random", max_trials=2)).total is None


def test_a_hook_has_no_plan() -> None:
    with pytest.raises(ConfigError, match="cannot be previewed"):
        preview(config_of("custom", hook="a:B", max_length=1))
