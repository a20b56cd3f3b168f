from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from detbuild.config.hyperparameters import RandomState
from detbuild.config.searcher import Explore
from detbuild.search.method import Began, Close, Create, Train, TrialEnd, TrialEnded, Validated
from detbuild.search.pbt import explore
from determined._contract.run_info import Length
from tests.unit.search.searches import SPACE, config_of, run, search_of, shapes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from detbuild.config.hyperparameters import Hyperparameter


def pbt(population: int, rounds: int, length: int, truncate: float, **more: object) -> dict[str, object]:
    return {
        "population_size": population,
        "num_rounds": rounds,
        "length_per_round": {"batches": length},
        "replace_function": {"truncate_fraction": truncate},
        **more,
    }


def by_number(create: Create, _length: int) -> float:
    return float(create.trial_id)


def test_the_best_is_copied_and_the_worst_closed() -> None:
    simulation = run(by_number, "pbt", **pbt(2, 2, 2, 0.5), smaller_is_better=False)
    assert shapes(simulation) == {(2, 4): 1, (2,): 2}
    assert simulation.trained[2] == [2, 4]
    assert [create.parent for create in simulation.creates.values()] == [None, None, 2]


def test_without_truncation_the_population_stays() -> None:
    simulation = run(by_number, "pbt", **pbt(3, 4, 4, 0), smaller_is_better=False)
    assert shapes(simulation) == {(4, 8, 12, 16): 3}


@pytest.mark.parametrize(
    ("smaller", "expected"),
    [
        (False, {(5, 10): 14, (5,): 4}),
        (True, {(5, 10, 15, 20, 25, 30, 35, 40): 2, (5,): 16}),
    ],
)
def test_newer_or_older_ones_being_better(smaller: bool, expected: dict[tuple[int, ...], int]) -> None:
    simulation = run(by_number, "pbt", **pbt(4, 8, 5, 0.5), smaller_is_better=smaller)
    assert shapes(simulation) == expected


def test_odd_ones_being_better() -> None:
    def world(create: Create, _length: int) -> float:
        return float(create.trial_id if create.trial_id % 2 else -create.trial_id)

    simulation = run(world, "pbt", **pbt(2, 3, 17, 0.5), smaller_is_better=False)
    assert shapes(simulation) == {(17, 34): 2, (17,): 2}


@pytest.mark.parametrize(("smaller", "sign"), [(True, 1), (False, -1)])
def test_generations_by_value(smaller: bool, sign: int) -> None:
    values = [sign * value for value in (0.5, 0.6, 0.1, 0.2, 0.3)]
    simulation = run(
        lambda create, _: values[create.trial_id - 1],
        "pbt",
        **pbt(2, 4, 2, 0.5),
        smaller_is_better=smaller,
    )
    assert [*simulation.trained.values()] == [[2, 4], [2], [2, 4, 6], [2], [2]]


def test_a_trial_that_fails_is_neither_trained_nor_copied() -> None:
    def world(create: Create, length: int) -> float | TrialEnd:
        if create.trial_id == 1 and length == 4:
            return TrialEnd.ERRORED
        return [0.5, 0.6, 0.1, 0.2, 0.3][create.trial_id - 1]

    simulation = run(world, "pbt", **pbt(2, 4, 2, 0.5))
    assert [*simulation.trained.values()] == [[2], [2], [2, 4, 6], [2], [2]]


def test_all_trials_failing_ends_the_search() -> None:
    assert shapes(run(lambda *_: TrialEnd.ERRORED, "pbt", **pbt(4, 3, 2, 0.25))) == {(): 4}


def test_ties_are_broken_by_the_request_id() -> None:
    search = search_of("pbt", **pbt(4, 2, 3, 0.25))
    creates = [action for action in search.decide(Began()) if isinstance(action, Create)]
    order = sorted(creates, key=lambda create: create.request_id)
    for create in creates:
        actions = search.decide(Validated(trial_id=create.trial_id, time=3, metric=1))
    close, copy, train, *others = actions
    assert close == Close(trial_id=order[-1].trial_id)
    assert isinstance(copy, Create)
    assert copy.parent == order[0].trial_id
    assert train == Train(trial_id=5, length=Length("batches", 3))
    assert others == [Train(trial_id=create.trial_id, length=Length("batches", 6)) for create in order[:-1]]


def test_a_trial_that_is_killed_after_its_round_is_the_worst() -> None:
    search = search_of("pbt", **pbt(4, 2, 3, 0.25))
    search.decide(Began())
    search.decide(Validated(trial_id=1, time=3, metric=0.1))
    search.decide(TrialEnded(trial_id=1, reason=TrialEnd.CANCELED))
    for trial in (2, 3, 4):
        actions = search.decide(Validated(trial_id=trial, time=3, metric=trial))
    assert [action.parent for action in actions if isinstance(action, Create)] == [2]
    assert not [action for action in actions if isinstance(action, Close)]


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
