"""Names of trials, and the error of what does not exist."""

from __future__ import annotations

import pytest

from detbuild.errors import ConfigError
from determined.common.api import errors
from determined.experimental import client
from determined.experimental.client import (
    TrialState,
)


@pytest.mark.parametrize(
    "call",
    [
        lambda: client.get_experiment(7),
        lambda: client.get_trial("7/1"),
        lambda: client.get_trial("1/9"),
        lambda: client.get_checkpoint("ffff"),
        lambda: client.get_model("none"),
        lambda: list(client.iter_trials_metrics(["1/9"])),
    ],
)
def test_what_is_not_there_is_determineds_error_and_ours_with_a_hint(search, call):
    with pytest.raises(errors.NotFoundException, match="hint: ") as caught:
        call()
    assert isinstance(caught.value, ConfigError)


@pytest.mark.parametrize("trial_id", ["1/2", (1, 2)])
def test_a_trial_is_named_by_its_experiment_and_number(search, trial_id):
    trial = client.get_trial(trial_id)
    assert (trial.id, trial.experiment_id, trial.number) == ("1/2", 1, 2)
    assert (trial.hparams, trial.state) == ({"lr": 0.2}, TrialState.COMPLETED)
    assert client.get_trial(trial.id).id == trial.id


@pytest.mark.parametrize("trial_id", [1, "1"])
def test_a_lone_number_is_the_first_trial_of_an_experiment(search, trial_id):
    assert client.get_trial(trial_id).id == "1/1"


def test_what_is_no_name_of_a_trial_is_said(search):
    with pytest.raises(ValueError, match="'one' is not a trial"):
        client.get_trial("one")
