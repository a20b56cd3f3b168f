from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace

import pytest

from detbuild.errors import ConfigError, SearchError
from detbuild.search.method import Began, Create, TrialEnd, TrialEnded, Validated, from_json, to_json
from detbuild.search.preview import Simulator
from tests.unit.search.searches import run, search_of, shapes

SPACE = {
    "lr": {"type": "log", "base": 10, "minval": -4, "maxval": 0},
    "net": {
        "layers": {"type": "int", "minval": 1, "maxval": 8},
        "act": {"type": "categorical", "vals": [["relu", 1], {"gelu": None}, "tanh"]},
        "width": 64,
    },
    "x": {"type": "double", "minval": -5, "maxval": 5},
}
OPTUNA = {"hyperparameters": SPACE, "max_length": {"batches": 8}}
SAMPLERS = pytest.mark.parametrize("sampler", ["tpe", "cmaes", "gp"])


def valley(create: Create, _length: int) -> float:
    return (float(str(create.hparams["x"])) - 2) ** 2


@SAMPLERS
def test_every_sampler_draws_from_the_space_and_the_seed_decides(sampler: str) -> None:
    settings = {**OPTUNA, "sampler": sampler, "max_trials": 6, "startup_trials": 3}
    one, same, other = (run(valley, "optuna", **settings, seed=seed) for seed in (1, 1, 2))
    assert shapes(one) == {(8,): 6}
    assert one.creates == same.creates
    assert one.creates != other.creates
    for create in one.creates.values():
        assert 1e-4 <= create.hparams["lr"] <= 1
        assert create.hparams["net"]["layers"] in range(1, 9)
        assert create.hparams["net"]["act"] in [["relu", 1], {"gelu": None}, "tanh"]
        assert create.hparams["net"]["width"] == 64
        assert from_json(to_json(create)) == create


def test_it_learns_which_way_is_better() -> None:
    settings = {**OPTUNA, "max_trials": 40, "max_concurrent_trials": 1, "startup_trials": 8}
    down = run(valley, "optuna", **settings)
    up = run(lambda create, _: -valley(create, 0), "optuna", **settings, smaller_is_better=False)
    late = [float(str(create.hparams["x"])) for create in down.creates.values()][-15:]
    assert sum(abs(x - 2) < 1.5 for x in late) >= 10
    assert down.creates == up.creates


def test_failures_teach_nothing_and_invalid_ones_are_replaced() -> None:
    ends = {1: TrialEnd.ERRORED, 2: TrialEnd.INVALID_HP, 3: None}
    simulation = run(
        lambda create, length: ends.get(create.trial_id, valley(create, length)),
        "optuna",
        **OPTUNA,
        max_trials=5,
    )
    assert shapes(simulation) == Counter({(8,): 4, (): 2})


@SAMPLERS
def test_replay_decides_the_same(sampler: str) -> None:
    settings = {
        **OPTUNA,
        "sampler": sampler,
        "max_trials": 8,
        "max_concurrent_trials": 2,
        "startup_trials": 2,
    }
    simulator = Simulator(search_of("optuna", **settings), valley)
    history = simulator.run().history
    again = search_of("optuna", **settings)
    for event, actions in history[:9]:
        again.replay(event, [from_json(to_json(action)) for action in actions])
    assert [again.decide(event) for event, _ in history[9:]] == [actions for _, actions in history[9:]]


def test_what_another_version_chose_is_taken_over() -> None:
    settings = {**OPTUNA, "max_trials": 12, "max_concurrent_trials": 2, "startup_trials": 2}
    search = search_of("optuna", **settings)
    begun = search.decide(Began())
    chosen = {"lr": 0.01, "net": {"layers": 3, "act": {"gelu": None}, "width": 64}, "x": 2.0}
    recorded = [replace(action, hparams=chosen) if isinstance(action, Create) else action for action in begun]
    again = search_of("optuna", **settings)
    again.replay(Began(), recorded)
    again.decide(Validated(trial_id=1, time=8, metric=0.0))
    study = again._study._study  # what Optuna knows is what counts, and it shows nowhere else
    assert [trial.params["x"] for trial in study.get_trials() if trial.value == 0] == [2.0]
    assert isinstance(again.decide(TrialEnded(trial_id=1, reason=TrialEnd.COMPLETED))[0], Create)


def test_a_record_of_another_search_cannot_be_continued() -> None:
    settings = {**OPTUNA, "max_trials": 4}
    begun = search_of("optuna", **settings).decide(Began())
    with pytest.raises(SearchError, match="cannot be continued"):
        search_of("optuna", **settings).replay(Began(), begun[:-1])


@pytest.mark.parametrize(("sampler", "package"), [("tpe", "optuna"), ("cmaes", "cmaes"), ("gp", "scipy")])
def test_a_missing_package_is_named(sampler: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(ConfigError, match=f"{sampler} needs the Python package {package}") as caught:
        search_of("optuna", **OPTUNA, sampler=sampler, max_trials=3)
    assert "detbuild[optuna]" in caught.value.hint
