"""Trials from Python: metrics, logs and the choice of a checkpoint."""

from __future__ import annotations

import pytest

from determined.experimental import client
from determined.experimental.client import (
    LogLevel,
    OrderBy,
    TrialSortBy,
)


def test_trials_are_listed_in_the_order_that_is_asked_for(search):
    def listed(*order, **options):
        return [trial.number for trial in client.get_experiment(1).list_trials(*order, **options)]

    assert listed() == [1, 2, 3]
    assert listed(TrialSortBy.ID, OrderBy.DESCENDING) == [3, 2, 1]
    assert listed(TrialSortBy.BEST_VALIDATION_METRIC) == [2, 3, 1]
    assert listed(TrialSortBy.LATEST_VALIDATION_METRIC) == [2, 3, 1]
    assert listed(TrialSortBy.BATCHES_PROCESSED, OrderBy.ASC) == [3, 1, 2]
    assert listed(TrialSortBy.START_TIME, OrderBy.DESC, max_results=2) == [3, 2]


def test_metrics_come_as_they_were_reported(search):
    found = list(client.get_trial("1/1").iter_metrics("validation"))
    assert [(one.trial_id, one.trial_run_id, one.steps_completed, one.group) for one in found] == [
        ("1/1", 0, 1, "validation"),
        ("1/1", 0, 2, "validation"),
    ]
    assert found[0].metrics == {"loss": 0.5, "accuracy": 0.9}
    assert found[0].end_time.utcoffset().total_seconds() == 0
    assert len(list(client.get_trial("1/1").iter_metrics())) == 4
    both = client.stream_trials_metrics(["1/1", "1/3"], "training")
    assert [(one.trial_id, one.metrics["loss"]) for one in both] == [("1/1", 1.0), ("1/1", 0.8), ("1/3", 0.6)]


def test_a_summary_has_determineds_names_of_groups(search):
    summary = client.get_trial("1/1").summary_metrics
    assert summary["avg_metrics"]["loss"]["count"] == 2
    assert summary["validation_metrics"]["loss"]["min"] == 0.4


def test_lines_of_a_trial_are_chosen_as_on_the_command_line(search):
    trial = client.get_trial("1/1")
    assert list(trial.logs(tail=1)) == ["  at line 3\n"]
    assert list(trial.iter_logs(head=1)) == ["INFO: begun\n"]
    assert list(trial.iter_logs(min_level=LogLevel.ERROR)) == ["ERROR: broken\n", "  at line 3\n"]
    assert list(trial.iter_logs(rank_ids=[1], stdtypes=["stderr"])) == []
    assert len(list(trial.iter_logs(follow=True))) == 5
    assert len(list(client.get_experiment(1).logs(head=1))) == 3
    with pytest.raises(ValueError, match="exclude each other"):
        list(trial.iter_logs(follow=True, tail=1))


def test_older_names_of_determineds_methods_lead_to_the_same(search):
    trial = client.get_trial("1/1")
    assert [one.id for one in client.get_experiment(1).get_trials()] == ["1/1", "1/2", "1/3"]
    assert [one.uuid for one in trial.get_checkpoints()] == [one.uuid for one in trial.list_checkpoints()]
    assert len(list(trial.stream_metrics("validation"))) == 2


def batches(checkpoints):
    return [(one.trial_id[-1], one.steps_completed) for one in checkpoints]


def test_one_checkpoint_of_a_trial_is_selected(search):
    trial = client.get_trial("1/2")
    assert batches([trial.select_checkpoint(latest=True)]) == [("2", 2)]
    assert batches([trial.select_checkpoint(best=True)]) == [("2", 1)]
    assert batches([trial.top_checkpoint("accuracy", smaller_is_better=False)]) == [("2", 2)]
    uuid = trial.select_checkpoint(best=True).uuid
    assert trial.select_checkpoint(uuid=uuid[:9]).uuid == uuid


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"latest": True, "best": True},
        {"uuid": ""},
        {"uuid": "zzz"},
        {"best": True, "sort_by": "loss"},
        {"latest": True, "sort_by": "loss", "smaller_is_better": True},
        {"best": True, "sort_by": "f1", "smaller_is_better": True},
    ],
)
def test_a_selection_that_means_nothing_is_an_error(search, options):
    with pytest.raises(ValueError, match=r"."):
        client.get_trial("1/1").select_checkpoint(**options)
