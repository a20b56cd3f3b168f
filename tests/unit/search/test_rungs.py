from __future__ import annotations

from bisect import insort

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detbuild.search.rungs import Rung, rung_lengths, rungs_within


@pytest.mark.parametrize(
    ("num_rungs", "length", "divisor", "expected"),
    [
        (3, 9, 3, [1, 3, 9]),
        (4, 10, 2, [1, 2, 5, 10]),
        (1, 9, 3, [9]),
        (3, 900, 3, [100, 300, 900]),
        (3, 576000, 3, [64000, 192000, 576000]),
        (3, 12, 3, [1, 4, 12]),
        (5, 4, 4, [1, 1, 1, 1, 4]),
    ],
)
def test_rungs_are_determineds(num_rungs: int, length: int, divisor: float, expected: list[int]) -> None:
    assert rung_lengths(num_rungs, length, divisor) == expected


@pytest.mark.parametrize(
    ("limit", "divisor", "expected"),
    [(243, 3, 6), (125, 5, 4), (1000, 10, 4), (1, 4, 1), (3, 4, 1), (4, 4, 2), (100, 4, 4), (900, 3, 7)],
)
def test_the_logarithm_that_limits_the_rungs_is_exact(limit: int, divisor: float, expected: int) -> None:
    assert rungs_within(limit, divisor, 10) == expected


def test_no_more_rungs_than_asked_for() -> None:
    assert rungs_within(10**9, 3, 5) == 5


def test_of_equal_results_the_first_is_promoted_and_the_last_survives() -> None:
    promoting, stopping = Rung(1), Rung(1)
    assert [promoting.promote(trial, 1.0, 3) for trial in (1, 2, 3)] == [None, None, (1, 1.0)]
    assert [stopping.survives(trial, 1.0, 3) for trial in (1, 2, 3)] == [True, True, True]


def test_who_waits_is_closed_best_first_and_once() -> None:
    rung = Rung(1)
    for trial, cost in ((1, 3.0), (2, 2.0), (3, 1.0), (4, 2.0)):
        rung.promote(trial, cost, 4)
    assert rung.close() == [2, 4, 1]
    assert rung.close() == []


def test_what_is_forgotten_had_never_been() -> None:
    rung, other = Rung(1), Rung(1)
    for trial, cost in ((1, 3.0), (2, 2.0)):
        rung.promote(trial, cost, 3)
    other.promote(2, 2.0, 3)
    rung.forget(1)
    rung.forget(77)
    assert [rung.promote(trial, 4.0, 3) for trial in (5, 6)] == [
        other.promote(trial, 4.0, 3) for trial in (5, 6)
    ]
    assert len(rung) == len(other)


@given(
    costs=st.lists(st.integers(0, 9).map(float), max_size=60), divisor=st.sampled_from([1.5, 2.0, 3.0, 4.0])
)
def test_after_each_result_the_best_have_been_promoted_and_none_twice(
    costs: list[float], divisor: float
) -> None:
    rung, order, promoted = Rung(1), [], []
    for trial, cost in enumerate(costs):
        insort(order, (cost, trial))
        winner = rung.promote(trial, cost, divisor)
        if winner is not None:
            promoted.append(winner[0])
            assert costs[winner[0]] == winner[1]
        best = {trial for _, trial in order[: int(len(order) / divisor)]}
        assert best <= set(promoted)
        assert len(promoted) == len(set(promoted))


def test_who_is_forgotten_does_not_wait() -> None:
    rung = Rung(1)
    for trial in (1, 2):
        rung.promote(trial, 1.0, 4)
    rung.forget(1)
    assert rung.close() == [2]
