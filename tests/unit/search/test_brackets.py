from __future__ import annotations

from bisect import insort

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detbuild.search.brackets import (
    Bracket,
    Rung,
    Tournament,
    asha_brackets,
    bracket_concurrency,
    bracket_rungs,
    bracket_trials,
    even_split,
    rung_lengths,
    rungs_within,
)
from detbuild.search.method import Action, Create, TrialEnd


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


class RecordingBracket:
    """Records what it receives; creates the trials that it was made with."""

    share = 0.0

    def __init__(self, *trials: int, progress: float, needs_every_validation: bool = False) -> None:
        self.trials, self.progress, self.needs_every_validation = trials, progress, needs_every_validation
        self.received: list[object] = []

    def begin(self) -> list[Action]:
        return [Create(trial_id=trial, request_id="", seed=0) for trial in self.trials]

    def validated(self, trial_id: int, time: float, cost: float) -> list[Action]:
        self.received.append((trial_id, time, cost))
        return [Create(trial_id=trial_id + 10, request_id="", seed=0)]

    def ended(self, trial_id: int, reason: TrialEnd) -> list[Action]:
        self.received.append((trial_id, reason))
        return []


def test_each_bracket_receives_the_events_of_the_trials_that_it_created() -> None:
    one, two = (
        RecordingBracket(1, 2, progress=0.5),
        RecordingBracket(3, progress=1.0, needs_every_validation=True),
    )
    tournament = Tournament([one, two])
    assert [action.trial_id for action in tournament.begin() if isinstance(action, Create)] == [1, 2, 3]
    tournament.validated(3, 5, 0.5)
    tournament.ended(13, TrialEnd.ERRORED)
    tournament.validated(2, 4, 0.25)
    assert one.received == [(2, 4, 0.25)]
    assert two.received == [(3, 5, 0.5), (13, TrialEnd.ERRORED)]
    assert tournament.bracket_of == {1: 0, 2: 0, 3: 1, 13: 1, 12: 0}
    assert tournament.progress == 0.75
    assert tournament.needs_every_validation
