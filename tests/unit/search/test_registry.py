from __future__ import annotations

import pytest

from detbuild.config.searcher import SEARCHERS
from detbuild.search.registry import METHODS, time_metric
from tests.unit.search.searches import config_of


def test_every_searcher_of_the_config_is_a_method() -> None:
    assert {*SEARCHERS.built_in} - {"custom"} == {*METHODS}


@pytest.mark.parametrize(
    ("searcher", "expected"),
    [
        ({"name": "single"}, "batches"),
        ({"name": "single", "max_length": {"epochs": 1}}, "epochs"),
        (
            {"name": "pbt", "population_size": 1, "num_rounds": 1, "length_per_round": {"records": 4}},
            "records",
        ),
        ({"name": "adaptive_asha", "max_trials": 1, "max_time": 3, "time_metric": "episodes"}, "episodes"),
        ({"name": "adaptive_asha", "max_trials": 1, "max_length": {"epochs": 3}}, "epochs"),
    ],
)
def test_what_time_counts(searcher: dict[str, object], expected: str) -> None:
    assert time_metric(config_of(**searcher)) == expected
