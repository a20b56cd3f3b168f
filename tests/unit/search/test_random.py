from __future__ import annotations

import pytest

from detbuild.decisions import Began, Close, Create, Finish, Train, TrialEnd, TrialEnded
from detbuild.search import base
from determined._run_info import Length
from tests.unit.search.searches import equal_results, run, search_of, shapes


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
