from __future__ import annotations

import random as python_random
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detbuild.config.hyperparameters import Draw, RandomState, draws, sample, trial_identity
from detbuild.config.parse import LOCAL_DEFAULTS, config_from_mapping
from tests.unit.config.configs import refusal

SPACE = {
    "cat": {"type": "categorical", "vals": [0, 1, 2, 3, 4, 5, 6]},
    "const": "fixed",
    "double": {"type": "double", "minval": 0, "maxval": 100},
    "int": {"type": "int", "minval": 0, "maxval": 100},
    "log": {"type": "log", "base": 10, "minval": -2, "maxval": 2},
}


def space(hyperparameters: object) -> object:
    return config_from_mapping({"hyperparameters": hyperparameters}, defaults=LOCAL_DEFAULTS).hyperparameters


def trial(cat: int, double: float, integer: int, log: float, *identity: object) -> Draw:
    # Powers may differ in the last digit from one C library to another.
    close = pytest.approx(log, rel=1e-14)
    hparams = {"cat": cat, "const": "fixed", "double": double, "int": integer, "log": close}
    return Draw(hparams, *identity)


@pytest.mark.parametrize(
    ("seed", "trials"),
    [
        (
            0,
            [
                trial(4, 59.28446182250183, 64, 2.57663857461358,
                      "c3767d8b-677d-45d8-89a4-746cd3dea19f", 626610453),
                trial(2, 43.75872112626925, 70, 0.016859780231705836,
                      "8ccdcc45-3a39-4962-8142-487ae67daeca", 1340754471),
            ],
        ),
        (777, [trial(3, 20.072624878612466, 49, 0.6909416399261994,
                     "7f2ad3d5-7470-4390-a7ad-4fedd943989c", 974910254)]),
    ],
)  # fmt: skip
def test_trials_are_those_of_determined(seed: int, trials: list[Draw]) -> None:
    assert list(islice(draws(space(SPACE), seed), len(trials))) == trials


def test_the_first_trial_can_be_asked_for_alone() -> None:
    first = next(draws(space(SPACE), 777))
    assert sample(space(SPACE), 777) == first.hparams
    assert trial_identity(space(SPACE), 777) == (first.request_id, first.trial_seed)


def test_nested_hyperparameters_are_drawn_in_the_order_of_their_names() -> None:
    nested = {"b": {"double": SPACE["double"], "int": SPACE["int"]}, "a": SPACE["cat"], "c": {}}
    flat = sample(space({"1": SPACE["cat"], "2": SPACE["double"], "3": SPACE["int"]}), 5)
    assert sample(space(nested), 5) == {"a": flat["1"], "b": {"double": flat["2"], "int": flat["3"]}, "c": {}}


def test_the_order_in_the_file_does_not_matter() -> None:
    assert sample(space(dict(reversed(SPACE.items()))), 9) == sample(space(SPACE), 9)


def test_both_ends_of_an_int_are_drawn() -> None:
    narrow = space({"n": {"type": "int", "minval": -1, "maxval": 1}})
    assert {draw.hparams["n"] for draw in islice(draws(narrow, 1), 50)} == {-1, 0, 1}


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    bounds=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=2, max_size=2, unique=True),
)
def test_the_generator_is_numpys(seed: int, bounds: list[int]) -> None:
    ours, theirs = RandomState(seed), np.random.RandomState(seed)
    low, high = sorted(bounds)
    for _ in range(3):
        assert ours.randint(low, high) == theirs.randint(low, high, dtype=np.int64)
        assert ours.uniform(0.25, 9.5) == theirs.uniform(0.25, 9.5)
        assert ours.bytes(16) == theirs.bytes(16)
        assert ours.randint(0, 1 << 31) == theirs.randint(0, 1 << 31)
        assert ours.randint(7, 8) == theirs.randint(7, 8)
        assert ours.randint(0, 1 << 32) == theirs.randint(0, 1 << 32)


def test_drawing_leaves_pythons_own_generator_alone() -> None:
    before = python_random.getstate()
    sample(space(SPACE), 3)
    assert python_random.getstate() == before


HYPERPARAMETER_RULES = [
    ("{type: int, minval: 2, maxval: 2}", "h.maxval: must be above minval, 2, not 2"),
    ("{type: int, minval: 1.5, maxval: 2}", "h.minval: must be a whole number, not 1.5"),
    ("{type: int, minval: 1, maxval: 2, count: 0}", "h.count: must be at least 1, not 0"),
    ("{type: int, minval: 1}", "h.maxval: is missing; add `maxval:`"),
    ("{type: double, minval: 1e-1, maxval: 1e-2}", "h.maxval: must be above minval, 0.1, not 0.01"),
    ("{type: log, minval: -4, maxval: -1}", "h.base: is missing; add `base:`"),
    ("{type: log, minval: -4, maxval: -1, base: 0}", "h.base: must be above 0, not 0"),
    (
        "{type: log, minval: 1, maxval: 400, base: 10}",
        "h.maxval: base ** maxval is out of range for a double",
    ),
    ("{type: log, minval: -400, maxval: 1, base: 0.1}", "h.minval: base ** minval is out of range"),
    ("{type: categorical, vals: []}", "h.vals: must not be empty"),
    ("{type: categorical, vals: a}", "h.vals: must be a list, not 'a'; write `[a]`"),
    ("{type: const}", "h.val: is missing; add `val:`"),
    ("{type: uniform, minval: 1}", "h.type: unknown type 'uniform'; did you mean `double`?"),
    ("{type: [int]}", "h.type: unknown type a list"),
    ("{a: {type: ~}}", "h.a.type: unknown type null"),
    ("{a: {type: int, minval: 1, maxval: 3, mxval: 4}}", "h.a.mxval: unknown field of `hyperparameters.h.a`"),
]


@pytest.mark.parametrize(("written", "problem"), HYPERPARAMETER_RULES)
def test_a_wrong_hyperparameter_is_refused_by_its_path(written: str, problem: str) -> None:
    assert refusal(f"hyperparameters: {{h: {written}}}").startswith(f"hyperparameters.{problem}")
