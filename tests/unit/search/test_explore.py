from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from detbuild.config.hyperparameters import RandomState
from detbuild.config.searcher import Explore
from detbuild.search.explore import explore
from tests.unit.search.searches import SPACE, config_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from detbuild.config.hyperparameters import Hyperparameter

OLD = {"cat": 3, "const": "fixed", "double": 50.0, "int": 50, "log": 1.0}


def space(hyperparameters: object = None) -> Mapping[str, Hyperparameter]:
    return config_of("single", hyperparameters=hyperparameters).hyperparameters


def explored(seed: int, resample: float, factor: float, old: dict[str, object] = OLD) -> dict[str, object]:
    how = Explore(resample_probability=resample, perturb_factor=factor)
    return explore(space(), old, how, RandomState(seed))


@pytest.mark.parametrize("seed", range(20))
def test_a_factor_of_zero_changes_nothing(seed: int) -> None:
    assert explored(seed, 0, 0) == OLD


@pytest.mark.parametrize("seed", range(20))
def test_numbers_go_up_or_down_by_the_factor_and_choices_stay(seed: int) -> None:
    new = explored(seed, 0, 0.25, {**OLD, "int": 49})
    assert (new["cat"], new["const"]) == (3, "fixed")
    assert new["double"] in {37.5, 62.5}
    assert new["int"] in {36, 62}  # down to the whole number below, up to the one above
    assert new["log"] in {0.75, 1.25}


@pytest.mark.parametrize("seed", range(20))
def test_values_stay_in_their_range(seed: int) -> None:
    new = explored(seed, 0, 1.0, {**OLD, "double": 100.0, "int": 100, "log": 100.0})
    assert new["double"] in {0.0, 100.0}
    assert new["int"] in {0, 100}
    assert new["log"] in {0.01, 100.0}


def test_resampling_draws_each_anew_after_one_draw_that_decides_it() -> None:
    numpy = np.random.RandomState(5)
    expected: dict[str, object] = {}
    for name in SPACE:
        numpy.uniform()
        if name == "const":
            expected[name] = "fixed"
        elif name == "cat":
            expected[name] = numpy.randint(0, 7)
        elif name == "double":
            expected[name] = numpy.uniform(0, 100)
        elif name == "int":
            expected[name] = numpy.randint(0, 101)
        else:
            expected[name] = pytest.approx(10 ** numpy.uniform(-2, 2), rel=1e-14)
    assert explored(5, 1, 0) == expected


def test_nested_ones_are_explored_where_their_map_stands() -> None:
    nested = space({"a": {"x": SPACE["double"]}, "b": SPACE["double"]})
    flat = space({"1": SPACE["double"], "2": SPACE["double"]})
    how = Explore(resample_probability=0.5, perturb_factor=0.5)
    for seed in range(5):
        new = explore(nested, {"a": {"x": 10.0}, "b": 20.0}, how, RandomState(seed))
        same = explore(flat, {"1": 10.0, "2": 20.0}, how, RandomState(seed))
        assert new == {"a": {"x": same["1"]}, "b": same["2"]}
