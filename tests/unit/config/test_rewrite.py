from __future__ import annotations

from detbuild.config import rewrite
from detbuild.config.parse import parse_config

TEXT = (
    "entrypoint: a:B\n"
    "searcher: {name: random, metric: acc, smaller_is_better: false, max_trials: 9, max_length: 9}\n"
    "hyperparameters: {b: {type: int, minval: 1, maxval: 9}, a: 1}\n"
    "checkpoint_storage: {type: shared_fs, host_path: /data, save_trial_best: 3}\n"
)


def test_a_test_is_one_batch_without_restart_of_which_nothing_is_kept() -> None:
    config = parse_config(TEXT + "description: mnist\nreproducibility: {experiment_seed: 7}\n")
    resolved = rewrite.test_mode(config).resolved()
    hparams = resolved["hyperparameters"]
    assert isinstance(hparams, dict)
    assert resolved == {
        **config.resolved(),
        "description": "[test-mode] mnist",
        "scheduling_unit": 1,
        "min_validation_period": {"batches": 1},
        "max_restarts": 0,
        "searcher": {
            "name": "single",
            "metric": "acc",
            "smaller_is_better": False,
            "source_trial_id": None,
            "source_checkpoint_uuid": None,
            "max_length": {"batches": 1},
        },
        "hyperparameters": {"a": {"type": "const", "val": 1}, "b": hparams["b"]},
        "checkpoint_storage": {
            **config.checkpoint_storage.model_dump(),
            "save_experiment_best": 0,
            "save_trial_best": 0,
            "save_trial_latest": 0,
        },
    }
    assert hparams["b"]["type"] == "const"
    assert 1 <= hparams["b"]["val"] <= 9


def test_a_test_without_description_is_named_as_one() -> None:
    assert rewrite.test_mode(parse_config(TEXT)).description == "[test-mode]"


def test_the_config_is_left_as_it_was() -> None:
    config = parse_config(TEXT)
    rewrite.test_mode(config)
    rewrite.completed(config, seed=5)
    assert config == parse_config(TEXT)


def test_a_submission_fills_seed_and_name() -> None:
    filled = rewrite.completed(parse_config(TEXT), seed=(1 << 32) + 5)
    assert filled.reproducibility.experiment_seed == 5
    assert filled.name == "Experiment (fond-jade-ibex)"


def test_a_seed_and_a_name_that_are_given_stay() -> None:
    config = parse_config(TEXT + "name: mine\ndescription: d\nreproducibility: {experiment_seed: 0}\n")
    assert rewrite.completed(config, seed=5) == config


def test_the_description_is_the_name_where_there_is_none() -> None:
    assert rewrite.completed(parse_config(TEXT + "description: mnist\n"), seed=5).name == "mnist"
