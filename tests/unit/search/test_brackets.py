from __future__ import annotations

import pytest

from detbuild.search.brackets import (
    Bracket,
    asha_brackets,
    bracket_concurrency,
    bracket_rungs,
    bracket_trials,
    even_split,
)


@pytest.mark.parametrize(
    ("max_trials", "divisor", "rungs", "expected"),
    [
        (20, 3, [3, 2, 1], [12, 5, 3]),
        (50, 3, [4, 3], [35, 15]),
        (50, 4, [3, 2], [37, 13]),
        (100, 4, [4, 3, 2], [70, 22, 8]),
    ],
)
def test_trials_of_brackets(max_trials: int, divisor: float, rungs: list[int], expected: list[int]) -> None:
    assert bracket_trials(max_trials, divisor, rungs) == expected


@pytest.mark.parametrize(
    ("concurrent", "divisor", "trials", "expected"),
    [
        (0, 3, [9, 3, 1], [3, 3, 3]),
        (11, 3, [9, 3, 1], [4, 4, 3]),
        (0, 4, [40, 10], [10, 10]),
        (1, 4, [4, 2], [1, 1]),
    ],
)
def test_concurrency_of_brackets(
    concurrent: int, divisor: float, trials: list[int], expected: list[int]
) -> None:
    assert bracket_concurrency(concurrent, divisor, trials) == expected


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("conservative", [[1], [2, 1], [3, 2, 1], [4, 3, 2, 1], [5, 4, 3, 2, 1]]),
        ("standard", [[1], [2, 1], [3, 2], [4, 3, 2], [5, 4, 3]]),
        ("aggressive", [[1], [2], [3], [4], [5]]),
    ],
)
def test_rungs_of_brackets_by_mode_deepest_first(mode: str, expected: list[list[int]]) -> None:
    assert [bracket_rungs(mode, most) for most in range(1, 6)] == expected


def test_the_rest_of_an_even_split_goes_to_the_first() -> None:
    assert even_split(8, 3) == [3, 3, 2]
    assert even_split(1, 3) == [1, 1, 1]


def brackets(**settings: object) -> list[Bracket]:
    given = {"mode": "standard", "given": (), "max_rungs": 5, "divisor": 4, "max_trials": 10}
    return asha_brackets(**{**given, **settings})


def test_brackets_fit_length_and_trials() -> None:
    assert brackets(length=100, max_concurrent_trials=2) == [Bracket(2, 7, 1), Bracket(1, 3, 1)]
    assert brackets(mode="conservative", length=1000, divisor=3, max_concurrent_trials=5) == [
        Bracket(3, 7, 2),
        Bracket(2, 2, 2),
        Bracket(1, 1, 1),
    ]


def test_given_rungs_are_taken_as_they_are() -> None:
    found = brackets(given=(2, 6), length=4, max_concurrent_trials=16)
    assert [bracket.num_rungs for bracket in found] == [6, 2]
