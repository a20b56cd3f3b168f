from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from detbuild.errors import ConfigError
from detbuild.search.method import Began, Close, Create, Finish, Train, TrialEnd, TrialEnded, Validated
from detbuild.search.preview import PlannedTrials, Preview, Simulator, preview, simulate
from determined._contract.run_info import Length
from tests.unit.search.searches import config_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from detbuild.search.method import Action, SearchEvent


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


class Scripted:
    """A search that says what it was told to say."""

    needs_every_validation = True
    progress = share = 0.0

    def __init__(self, answers: Mapping[SearchEvent, Sequence[Action]]) -> None:
        self.answers = answers

    def decide(self, event: SearchEvent) -> Sequence[Action]:
        return self.answers.get(event, ())

    def replay(self, event: SearchEvent, actions: Sequence[Action]) -> None:
        raise NotImplementedError


CREATE = Create(trial_id=1, request_id="r", seed=0)


def test_a_trial_validates_at_its_milestones_and_ends() -> None:
    train = Train(trial_id=1, length=Length("batches", 9), milestones=(3,))
    ended = TrialEnded(trial_id=1, reason=TrialEnd.COMPLETED)
    search = Scripted({Began(): (CREATE, train, Close(trial_id=1)), ended: (Finish(),)})
    simulation = simulate(search, lambda _, length: length / 10)
    assert [event for event, _ in simulation.history] == [
        Began(),
        Validated(trial_id=1, time=3, metric=0.3),
        Validated(trial_id=1, time=9, metric=0.9),
        ended,
    ]
    assert simulation.trained == {1: [3, 9]}


def test_a_trial_without_a_length_validates_where_it_likes() -> None:
    ended = TrialEnded(trial_id=1, reason=TrialEnd.COMPLETED)
    search = Scripted({Began(): (CREATE, Train(trial_id=1), Close(trial_id=1)), ended: (Finish(),)})
    assert Simulator(search, lambda *_: 1.0, unbounded=(2, 5)).run().trained == {1: [2, 5]}


def test_a_search_that_leaves_a_trial_waiting_is_caught() -> None:
    train = Train(trial_id=1, length=Length("batches", 9))
    with pytest.raises(RuntimeError, match="has not finished"):
        simulate(Scripted({Began(): (CREATE, train)}), lambda *_: 1.0)
