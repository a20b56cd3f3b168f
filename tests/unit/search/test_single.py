from __future__ import annotations

from detbuild.decisions import Began, Close, Create, Finish, Train, TrialEnd, TrialEnded, Validated
from determined._run_info import Length
from tests.unit.search.searches import search_of


def test_there_is_one_trial_and_the_seed_decides_all_of_it() -> None:
    create, train, close = search_of("single", seed=7, max_length={"epochs": 2}).decide(Began())
    assert isinstance(create, Create)
    assert create.trial_id == 1
    assert 0 <= float(str(create.hparams["double"])) < 100
    assert (train, close) == (Train(trial_id=1, length=Length("epochs", 2)), Close(trial_id=1))
    assert search_of("single", seed=7).decide(Began())[0] == create
    assert search_of("single", seed=8).decide(Began())[0] != create


def test_the_experiment_is_over_with_its_trial() -> None:
    search = search_of("single")
    search.decide(Began())
    assert search.decide(Validated(trial_id=1, time=1, metric=0.5)) == []
    assert search.decide(TrialEnded(trial_id=1, reason=TrialEnd.COMPLETED)) == [Finish()]
    assert search.progress == 1
