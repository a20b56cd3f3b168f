from __future__ import annotations

import pytest

from detbuild.config.hyperparameters import leaves
from detbuild.search.grid import Grid, axis
from tests.unit.search.searches import config_of, equal_results, run, shapes


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
    from detbuild.decisions import TrialEnd

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
