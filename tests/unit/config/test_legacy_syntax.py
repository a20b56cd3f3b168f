"""Configs of Determined 0.12, with lengths in steps, mean what they meant."""

from __future__ import annotations

import pytest

from detbuild.config.parse import parse_config
from detbuild.config.yaml import ConfigErrors
from determined._contract.run_info import Length
from tests.unit.config.configs import search, value_at, whole


def test_steps_of_determined_0_12_become_batches() -> None:
    text = (
        "entrypoint: a:B\nbatches_per_step: 5\nmin_validation_period: 3\nmin_checkpoint_period: {epochs: 1}\n"
        "searcher: {name: single, metric: loss, max_steps: 10}\n"
    )
    config = parse_config(text)
    assert (config.searcher.max_length, config.min_validation_period, config.min_checkpoint_period) == (
        Length("batches", 50),
        Length("batches", 15),
        Length("epochs", 1),
    )


def test_a_step_is_a_hundred_batches_unless_said() -> None:
    config = parse_config("entrypoint: a:B\nsearcher: {name: single, metric: loss, max_steps: 10}\n")
    assert config.searcher.max_length == Length("batches", 1000)


def test_old_adaptive_and_population_searchers_are_read_in_batches() -> None:
    adaptive = "{name: adaptive, metric: loss, target_trial_steps: 2, step_budget: 9}"
    pbt = "{name: pbt, metric: loss, population_size: 2, num_rounds: 3, steps_per_round: 4}"
    budget = parse_config(f"entrypoint: a:B\nsearcher: {adaptive}\n").resolved()["searcher"]
    rounds = parse_config(f"entrypoint: a:B\nsearcher: {pbt}\n").resolved()["searcher"]
    assert isinstance(budget, dict)
    assert isinstance(rounds, dict)
    assert (budget["max_length"], budget["budget"]) == ({"batches": 200}, {"batches": 900})
    assert rounds["length_per_round"] == {"batches": 400}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("max_steps: 0}", "searcher.max_steps: must be a whole number above 0, not 0"),
        ("max_steps: x}", "searcher.max_steps: must be a whole number above 0, not 'x'"),
        ("max_steps: 1, max_length: 5}", "searcher.max_steps: is the old form of max_length"),
        ("max_steps: 1}\nbatches_per_step: 1.5", "batches_per_step: must be a whole number above 0"),
    ],
)
def test_a_wrong_count_of_steps_is_refused_once(text: str, problem: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        parse_config(f"entrypoint: a:B\nsearcher: {{name: single, metric: l, {text}\n", source="c.yaml")
    (line,) = caught.value.lines
    assert line.split(": ", 1)[1].startswith(problem)


STEPS: list[tuple[str, str, object]] = [
    (search("name: single, max_steps: 10"), "searcher.max_length", {"batches": 1000}),
    (search("name: random, max_steps: 2, max_trials: 3"), "searcher.max_concurrent_trials", 0),
    (search("name: grid, max_steps: 2"), "searcher.max_concurrent_trials", 0),
    (
        search("name: async_halving, target_trial_steps: 8, num_rungs: 2, max_trials: 3"),
        "searcher.max_length",
        {"batches": 800},
    ),
    (search("name: adaptive_asha, target_trial_steps: 8, max_trials: 3"), "searcher.stop_once", False),
    (search("name: adaptive, target_trial_steps: 8, step_budget: 9"), "searcher.budget", {"batches": 900}),
    (search("name: adaptive_simple, max_steps: 8, max_trials: 9"), "searcher.max_length", {"batches": 800}),
    (
        search("name: sync_halving, target_trial_steps: 8, step_budget: 4, num_rungs: 2"),
        "searcher.budget",
        {"batches": 400},
    ),
    (
        search("name: pbt, steps_per_round: 2, population_size: 4, num_rounds: 3"),
        "searcher.length_per_round",
        {"batches": 200},
    ),
    (search("name: single, max_steps: 10") + "\nbatches_per_step: 7", "searcher.max_length", {"batches": 70}),
    (
        search("name: single, max_steps: 10") + "\nmin_validation_period: 2",
        "min_validation_period",
        {"batches": 200},
    ),
    (
        search("name: single, max_steps: 10") + "\nmin_checkpoint_period: 3",
        "min_checkpoint_period",
        {"batches": 300},
    ),
    (search("name: single, max_steps: 10"), "optimizations.average_training_metrics", False),
    ("environment: {image: {cpu: a, gpu: b}}", "environment.image.cuda", "b"),
    ("environment: {environment_variables: {gpu: [A=1]}}", "environment.environment_variables.cuda", ["A=1"]),
    ("data_layer: {type: shared_fs}", "data_layer.type", "shared_fs"),
    ("description: mine", "description", "mine"),
]


GONE: list[tuple[str, str]] = [
    (search("name: single, max_steps: 0"), "searcher.max_steps: must be a whole number above 0"),
    (
        search("name: single, max_steps: 1") + "\nmin_validation_period: 0",
        "min_validation_period: must be a whole number above 0",
    ),
    (
        search("name: adaptive, target_trial_steps: 9, step_budget: 9"),
        "searcher.step_budget: must be above max_length, 900, not 900",
    ),
    (
        search("name: adaptive_asha, target_trial_steps: 9, max_steps: 9, max_trials: 2"),
        "searcher.target_trial_steps: means the same as max_steps",
    ),
    (
        "checkpoint_storage: {type: hdfs, hdfs_url: x, hdfs_path: y}",
        "checkpoint_storage.type: hdfs was removed from Determined",
    ),
    (
        "internal: {native: {command: [train.py]}}",
        "internal.native: the Native API was removed in Determined",
    ),
]


@pytest.mark.parametrize(("text", "path", "value"), STEPS)
def test_a_config_of_0_12_means_what_it_meant(text: str, path: str, value: object) -> None:
    assert value_at(text, path) == value


@pytest.mark.parametrize(("text", "problem"), GONE)
def test_what_is_gone_or_wrong_in_a_config_of_0_12_is_told_by_its_own_words(text: str, problem: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        parse_config(whole(text), source="c.yaml")
    assert any(line.split(": ", 1)[1].startswith(problem) for line in caught.value.lines)
