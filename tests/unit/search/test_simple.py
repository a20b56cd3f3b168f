from __future__ import annotations

import pytest

from detbuild.config.hyperparameters import leaves
from detbuild.search import base
from detbuild.search.method import Began, Close, Create, Finish, Train, TrialEnd, TrialEnded, Validated
from detbuild.search.simple import Grid, axis
from determined._contract.run_info import Length
from tests.unit.search.searches import config_of, equal_results, run, search_of, shapes


def test_there_is_one_trial_and_the_seed_decides_all_of_it() -> None:
    create, train, close = search_of("single", seed=7, max_length={"epochs": 2}).decide(Began())
    assert isinstance(create, Create)
    assert create.trial_id == 1
    assert 0 <= float(str(create.hparams["double"])) < 100
    assert (train, close) == (Train(trial_id=1, length=Length("epochs", 2)), Close(trial_id=1))
    assert search_of("single", seed=7).decide(Began())[0] == create
    assert search_of("single", seed=8).decide(Began())[0] != create


def test_the_experiment_is_over_with_its_trial() -> None:
    search = search_of("single")
    search.decide(Began())
    assert search.decide(Validated(trial_id=1, time=1, metric=0.5)) == []
    assert search.decide(TrialEnded(trial_id=1, reason=TrialEnd.COMPLETED)) == [Finish()]
    assert search.progress == 1


def test_trials_are_those_of_determined() -> None:
    first, second = (
        create for create in search_of("random", max_trials=2).decide(Began()) if isinstance(create, Create)
    )
    assert first.trial_id == 1
    assert first.request_id == "c3767d8b-677d-45d8-89a4-746cd3dea19f"
    assert first.seed == 626610453
    assert first.hparams["double"] == 59.28446182250183
    assert (second.request_id, second.seed) == ("8ccdcc45-3a39-4962-8142-487ae67daeca", 1340754471)
    (third,) = (
        create
        for create in search_of("random", max_trials=1, seed=777).decide(Began())
        if isinstance(create, Create)
    )
    assert (third.request_id, third.seed) == ("7f2ad3d5-7470-4390-a7ad-4fedd943989c", 974910254)


def test_every_trial_is_trained_to_the_full_length() -> None:
    length = {"batches": 100}
    assert shapes(run(equal_results, "random", max_trials=4, max_length=length)) == {(100,): 4}
    assert shapes(run(equal_results, "single", max_length=length)) == {(100,): 1}


def test_a_script_may_have_no_length() -> None:
    actions = search_of("random", max_trials=1).decide(Began())
    assert actions[1:] == [Train(trial_id=1, length=None), Close(trial_id=1)]


def test_the_length_keeps_its_unit() -> None:
    actions = search_of("random", max_trials=1, max_length={"epochs": 3}).decide(Began())
    assert actions[1] == Train(trial_id=1, length=Length("epochs", 3))


@pytest.mark.parametrize(("concurrent", "at_start"), [(2, 2), (0, 7), (16, 7)])
def test_so_many_are_created_at_once_and_one_more_on_each_end(concurrent: int, at_start: int) -> None:
    search = search_of("random", max_trials=7, max_concurrent_trials=concurrent)
    assert sum(isinstance(action, Create) for action in search.decide(Began())) == at_start
    created = at_start
    for trial in range(1, 8):
        actions = search.decide(TrialEnded(trial_id=trial, reason=TrialEnd.ERRORED))
        created += sum(isinstance(action, Create) for action in actions)
        assert created == min(at_start + trial, 7)
        assert (Finish() in actions) == (trial == 7)
    assert search.progress == 1


def test_invalid_hyperparameters_are_replaced_and_not_counted() -> None:
    simulation = run(
        lambda create, _: TrialEnd.INVALID_HP if create.trial_id in {1, 3} else 0.1,
        "random",
        max_trials=4,
        max_length=5,
        max_concurrent_trials=2,
    )
    assert shapes(simulation) == {(5,): 4, (): 2}


def test_other_ends_are_not_replaced() -> None:
    simulation = run(lambda *_: TrialEnd.ERRORED, "random", max_trials=4, max_length=5)
    assert shapes(simulation) == {(): 4}


def test_single_is_over_with_its_trial_whatever_its_end() -> None:
    for reason in TrialEnd:
        search = search_of("single")
        search.decide(Began())
        assert search.decide(TrialEnded(trial_id=1, reason=reason)) == [Finish()]


def test_a_space_in_which_nothing_is_valid_comes_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MAX_REPLACED", 20)
    for name in ("random", "async_halving", "adaptive_asha"):
        settings = {"num_rungs": 2} if name == "async_halving" else {}
        for stop_once in (False, True):
            form = {"stop_once": stop_once} if name != "random" else {}
            simulation = run(
                lambda *_: TrialEnd.INVALID_HP, name, max_trials=6, max_length=16, **settings, **form
            )
            assert len(simulation.trained) == 26


def ranged(kind: str, low: float, high: float, count: int | None, **more: object) -> dict[str, object]:
    return {"type": kind, "minval": low, "maxval": high, **({"count": count} if count else {}), **more}


def values(hyperparameter: object) -> list[object]:
    ((_, leaf),) = leaves(config_of("grid", hyperparameters={"x": hyperparameter}).hyperparameters)
    return [*axis(leaf)]


@pytest.mark.parametrize(
    ("hyperparameter", "expected"),
    [
        (7, [7]),
        ({"type": "categorical", "vals": ["b", "a"]}, ["b", "a"]),
        (ranged("int", 0, 20, 3), [0, 10, 20]),
        (ranged("int", 0, 20, 7), [0, 3, 7, 10, 13, 17, 20]),
        (ranged("int", 0, 4, 5), [0, 1, 2, 3, 4]),
        (ranged("int", -4, -2, 3), [-4, -3, -2]),
        (ranged("int", -4, -2, 30), [-4, -3, -2]),
        (ranged("int", 0, 5, 1), [3]),
        (ranged("int", -5, 0, 1), [-3]),
        (ranged("int", 0, 5, 3), [0, 3, 5]),
        (ranged("int", -5, 0, 3), [-5, -3, 0]),
        (ranged("int", 0, 2**53 + 2, 2), [0, 2**53 + 2]),
        (ranged("double", 0, 2, 5), [0, 0.5, 1, 1.5, 2]),
        (ranged("double", 0, 2, 1), [1]),
        (ranged("log", -3, -2, 2, base=10), [10.0**-3, 10.0**-2]),
        (ranged("log", -4, -2, 1, base=10), [10.0**-3]),
    ],
)
def test_values_of_an_axis(hyperparameter: object, expected: list[object]) -> None:
    assert values(hyperparameter) == expected


def test_the_first_name_is_the_slowest_and_trials_come_from_the_end() -> None:
    space = {"b": ranged("int", 0, 10, 3), "a": ranged("int", 0, 20, 3)}
    found = [create.hparams for create in run(equal_results, "grid", hyperparameters=space).creates.values()]
    assert found == [{"a": a, "b": b} for a in (20, 10, 0) for b in (10, 5, 0)]


@pytest.mark.parametrize(("counts", "size"), [([2, 3, 4], 24), ([2, 2, 3, 3, 4, 5], 720)])
def test_the_size_of_a_grid(counts: list[int], size: int) -> None:
    space = {f"x{index}": ranged("double", 0, 1, count) for index, count in enumerate(counts)}
    grid = Grid(config_of("grid", hyperparameters=space).hyperparameters)
    points = [grid[index] for index in range(len(grid))]
    assert len(points) == size
    assert len({tuple(point.values()) for point in points}) == size


def test_nested_hyperparameters_are_axes_and_empty_maps_stay() -> None:
    two = {"type": "categorical", "vals": [1, 2]}
    space = {"optimizer": {"lr": two, "more": {"beta": two}, "none": {}}, "a": two, "z": two}
    grid = Grid(config_of("grid", hyperparameters=space).hyperparameters)
    assert len(grid) == 16
    assert grid[0] == {"a": 1, "optimizer": {"lr": 1, "more": {"beta": 1}, "none": {}}, "z": 1}
    assert grid[2] == {"a": 1, "optimizer": {"lr": 1, "more": {"beta": 2}, "none": {}}, "z": 1}
    assert grid[8] == {"a": 2, "optimizer": {"lr": 1, "more": {"beta": 1}, "none": {}}, "z": 1}


def test_each_point_is_trained_once_even_one_that_is_invalid() -> None:
    from detbuild.search.method import TrialEnd

    space = {"x": ranged("int", 0, 4, 5)}
    simulation = run(
        lambda create, _: TrialEnd.INVALID_HP if create.hparams["x"] == 3 else 0.5,
        "grid",
        hyperparameters=space,
        max_length={"batches": 10},
        max_concurrent_trials=2,
    )
    assert [create.hparams["x"] for create in simulation.creates.values()] == [4, 3, 2, 1, 0]
    assert shapes(simulation) == {(10,): 4, (): 1}


def test_no_hyperparameters_are_one_point() -> None:
    assert shapes(run(equal_results, "grid", hyperparameters={}, max_length=3)) == {(3,): 1}
