from __future__ import annotations

import pytest

from detbuild.config.parse import parse_config
from detbuild.config.yaml import ConfigErrors


@pytest.mark.parametrize(
    ("searcher", "defaults"),
    [
        ("name: random, max_trials: 3", {"max_concurrent_trials": 16}),
        ("name: grid", {"max_concurrent_trials": 16}),
        (
            "name: async_halving, num_rungs: 2, max_trials: 3",
            {
                "divisor": 4.0,
                "max_concurrent_trials": 16,
                "stop_once": False,
                "max_time": None,
                "time_metric": None,
            },
        ),
        (
            "name: adaptive_asha, max_trials: 3",
            {
                "mode": "standard",
                "divisor": 4.0,
                "max_rungs": 5,
                "bracket_rungs": [],
                "max_concurrent_trials": 16,
            },
        ),
        ("name: adaptive_simple, max_trials: 3", {"mode": "standard", "divisor": 4.0, "max_rungs": 5}),
        ("name: adaptive, budget: {epochs: 9}", {"mode": "standard", "max_rungs": 5, "bracket_rungs": []}),
        ("name: sync_halving, num_rungs: 2, budget: {epochs: 9}", {"divisor": 4.0, "budget": {"epochs": 9}}),
        (
            "name: pbt, population_size: 2, num_rounds: 2, length_per_round: 5",
            {
                "replace_function": {"truncate_fraction": 0.2},
                "explore_function": {"resample_probability": 0.2, "perturb_factor": 0.2},
            },
        ),
        (
            "name: custom",
            {"unit": None, "hook": None, "options": {}, "max_trials": None, "stop_once": False},
        ),
        (
            "name: optuna, max_trials: 3",
            {"sampler": "tpe", "startup_trials": None, "max_concurrent_trials": 16},
        ),
    ],
)
def test_every_search_method_is_read_with_its_defaults(searcher: str, defaults: dict[str, object]) -> None:
    text = f"entrypoint: a:B\nsearcher: {{metric: loss, max_length: {{epochs: 1}}, {searcher}}}\n"
    kept = parse_config(text).resolved()["searcher"]
    assert isinstance(kept, dict)
    assert {key: kept[key] for key in defaults} == defaults


@pytest.mark.parametrize(
    ("searcher", "problem"),
    [
        ("metric: loss", "searcher.name: is missing; one of single, random"),
        ("nam: single, metric: loss", "searcher.name: is missing; rename `nam` to `name`"),
        ("name: sngle, metric: loss", "searcher.name: unknown name 'sngle'; did you mean `single`?"),
        ("name: single", "searcher.metric: is missing"),
        ("name: single, metric: ''", "searcher.metric: must not be empty"),
        ("name: random, metric: loss", "searcher.max_trials: is missing"),
        (
            "name: single, metric: loss, max_trials: 3",
            "searcher.max_trials: unknown field of `searcher`; it belongs to",
        ),
        (
            "name: single, metric: loss, source_trial_id: 1, source_checkpoint_uuid: a",
            "searcher.source_checkpoint_uuid: cannot be combined with source_trial_id",
        ),
        (
            "name: single, metric: loss, source_checkpoint_uuid: ../a",
            "searcher.source_checkpoint_uuid: must be a checkpoint ID, not '../a'",
        ),
    ],
)
def test_a_wrong_searcher_is_refused_by_its_path(searcher: str, problem: str) -> None:
    text = f"entrypoint: python3 a.py\nsearcher: {{{searcher}}}\n"
    with pytest.raises(ConfigErrors) as caught:
        parse_config(text, source="c.yaml")
    assert str(caught.value).split(": ", 1)[1].startswith(problem)


def test_a_searcher_that_is_text_is_refused() -> None:
    with pytest.raises(ConfigErrors, match="searcher: must be a map with `name`, not 'single'"):
        parse_config("entrypoint: a:B\nsearcher: single\n")
