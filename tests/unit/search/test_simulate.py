from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from detbuild.decisions import Began, Close, Create, Finish, Train, TrialEnd, TrialEnded, Validated
from detbuild.search.simulate import Simulator, simulate
from determined._run_info import Length

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from detbuild.decisions import Action, SearchEvent


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
