from __future__ import annotations

import pytest

from detbuild.config.parse import config_from_mapping
from detbuild.decisions import Began, Close, Create, Finish, Train, TrialEnd, TrialEnded
from detbuild.errors import ConfigError, SearchError
from detbuild.search.methods import search_method
from determined._run_info import Length

BASE = {
    "entrypoint": "m:T",
    "searcher": {"name": "single", "metric": "loss", "max_length": {"batches": 8}},
    "reproducibility": {"experiment_seed": 7},
    "hyperparameters": {"lr": {"type": "double", "minval": 0, "maxval": 1}, "layers": 3},
}
CONFIG = config_from_mapping(BASE)
ENDED = TrialEnded(trial_id=1, reason=TrialEnd.COMPLETED)


def test_there_is_one_trial_and_the_seed_decides_all_of_it() -> None:
    create, *rest = search_method(CONFIG).decide(Began())
    assert isinstance(create, Create)
    assert (create.trial_id, create.hparams["layers"]) == (1, 3)
    assert rest == [Train(trial_id=1, length=Length("batches", 8)), Close(trial_id=1)]
    assert search_method(CONFIG).decide(Began())[0] == create
    other = config_from_mapping({**BASE, "reproducibility": {"experiment_seed": 8}})
    assert search_method(other).decide(Began())[0] != create


def test_the_experiment_is_over_with_its_trial() -> None:
    method = search_method(CONFIG)
    method.decide(Began())
    assert tuple(method.decide(ENDED)) == (Finish(),)
    assert method.progress == 1


def test_what_it_decided_before_a_restart_it_decides_again() -> None:
    method = search_method(CONFIG)
    method.recall(Began(), search_method(CONFIG).decide(Began()))
    with pytest.raises(SearchError):
        method.recall(ENDED, ())


def test_a_method_that_is_not_here_is_refused() -> None:
    searcher = {"name": "pbt", "metric": "loss", "population_size": 3, "num_rounds": 1}
    config = config_from_mapping({**BASE, "searcher": {**searcher, "length_per_round": {"batches": 1}}})
    with pytest.raises(ConfigError, match="pbt cannot run"):
        search_method(config)
