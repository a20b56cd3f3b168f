from __future__ import annotations

import pytest

from detbuild.config.parse import config_from_mapping
from detbuild.errors import ConfigError
from detbuild.search.method import CreateTrial, Finish, Observation
from detbuild.search.methods import search_method
from detbuild.search.single import Single

BASE = {
    "entrypoint": "m:T",
    "searcher": {"name": "single", "metric": "loss", "max_length": {"batches": 1}},
    "hyperparameters": {"lr": {"type": "double", "minval": 0, "maxval": 1}, "layers": 3},
}


def single(seed: int) -> Single:
    return Single(config_from_mapping(BASE).hyperparameters, seed)


def test_there_is_one_trial_and_the_seed_decides_all_of_it() -> None:
    (trial,) = single(7).decide(())
    assert isinstance(trial, CreateTrial)
    assert trial.trial_id == 1
    assert trial.hparams["layers"] == 3
    assert 0 <= float(str(trial.hparams["lr"])) < 1
    assert single(7).decide(()) == (trial,)
    assert single(8).decide(()) != (trial,)


def test_the_experiment_is_over_with_its_trial() -> None:
    assert single(7).decide((Observation(1, ended=False),)) == ()
    assert single(7).decide((Observation(1, ended=True),)) == (Finish(),)


def test_a_method_is_found_by_its_name_in_the_config() -> None:
    config = config_from_mapping({**BASE, "reproducibility": {"experiment_seed": 7}})
    assert search_method(config) == single(7)


def test_a_method_that_is_not_here_is_refused() -> None:
    searcher = {"name": "random", "metric": "loss", "max_trials": 3, "max_length": {"batches": 1}}
    with pytest.raises(ConfigError, match="random cannot run"):
        search_method(config_from_mapping({**BASE, "searcher": searcher}))
