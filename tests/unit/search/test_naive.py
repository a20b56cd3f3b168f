"""Both forms of ASHA against the same written plainly, in random orders with failures."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from detbuild.search.base import WORST
from detbuild.search.method import Close, Create, Finish, Stop, Train, TrialEnd, TrialEnded, Validated
from detbuild.search.preview import Simulator
from tests.unit.search.naive import NaivePromotion, NaiveStopping
from tests.unit.search.searches import search_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detbuild.search.method import Action

UNITS = [1, 3, 9, 27]
SHAPES = st.tuples(st.integers(0, 2**32), st.integers(1, 4), st.sampled_from([0.0, 0.2]))


def simulator(seed: int, rungs: int, failing: float, *, invalid: bool, stop_once: bool) -> Simulator:
    random = Random(seed)
    ends = [TrialEnd.ERRORED, TrialEnd.CANCELED, *([TrialEnd.INVALID_HP] if invalid else [])]

    def world(_create: Create, _length: int) -> float | TrialEnd | None:
        return (
            random.choice(ends) if random.random() < failing else random.choice([None, 0.5, random.random()])
        )

    search = search_of(
        "async_halving",
        num_rungs=rungs,
        divisor=3,
        max_trials=25,
        max_concurrent_trials=6,
        max_length={"batches": UNITS[rungs - 1]},
        stop_once=stop_once,
    )
    return Simulator(search, world, random=random)


def promoting(actions: Sequence[Action]) -> list[tuple[object, ...]]:
    told: list[tuple[object, ...]] = []
    for action in actions:
        if isinstance(action, Create):
            told.append(("create", action.trial_id))
        elif isinstance(action, Train) and action.length is not None:
            told.append(("train", action.trial_id, UNITS.index(action.length.count)))
        elif isinstance(action, Close):
            told.append(("close", action.trial_id))
    return told


@settings(max_examples=150, deadline=None)
@given(SHAPES)
def test_promotion_decides_as_its_rules_read(shape: tuple[int, int, float]) -> None:
    seed, rungs, failing = shape
    naive = NaivePromotion(num_rungs=rungs, divisor=3, max_trials=25)
    history = simulator(seed, rungs, failing, invalid=True, stop_once=False).run().history
    assert promoting(history[0][1]) == naive.begin(6)
    for event, actions in history[1:]:
        if isinstance(event, Validated):
            value = WORST if event.metric is None else event.metric
            assert promoting(actions) == naive.result(event.trial_id, value)
        elif isinstance(event, TrialEnded) and event.trial_id not in naive.closed:
            invalid = event.reason is TrialEnd.INVALID_HP
            end = naive.is_invalid if invalid else naive.fails
            assert promoting(actions) == end(event.trial_id)
        else:
            assert [*actions] in ([], [Finish()])


@settings(max_examples=150, deadline=None)
@given(SHAPES)
def test_stopping_decides_as_its_rules_read(shape: tuple[int, int, float]) -> None:
    seed, rungs, failing = shape
    naive = NaiveStopping(units=UNITS[:rungs], divisor=3, max_trials=25)
    history = simulator(seed, rungs, failing, invalid=False, stop_once=True).run().history
    naive.begin(6)
    for event, actions in history[1:]:
        told = [
            ("create" if isinstance(action, Create) else "stop", action.trial_id)
            for action in actions
            if isinstance(action, (Create, Stop))
        ]
        if isinstance(event, Validated):
            value = WORST if event.metric is None else event.metric
            assert told == naive.result(event.trial_id, event.time, value)
        elif isinstance(event, TrialEnded) and event.reason is not TrialEnd.COMPLETED:
            assert told == naive.fails(event.trial_id)
        else:
            assert told == []
