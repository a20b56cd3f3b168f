from __future__ import annotations

import json

import pytest

ASHA = """
entrypoint: m:T
searcher: {name: adaptive_asha, metric: loss, max_trials: 10, max_rungs: 10, divisor: 3,
           max_concurrent_trials: 5, max_time: 900, time_metric: batches}
"""


@pytest.fixture
def config(tmp_path):
    (tmp_path / "c.yaml").write_text(ASHA)
    return str(tmp_path / "c.yaml")


def test_the_plan_is_a_table(shell, config):
    outcome = shell("detbuild", "preview-search", config)
    assert outcome.code == 0
    assert outcome.out.splitlines() == [
        "bracket  trials  batches",
        "1        5       100",
        "1        1       300",
        "1        1       900",
        "2        2       300",
        "2        1       900",
        "10 trials, 3200 batches in total",
    ]


def test_determineds_own_word_gives_the_plan_for_programs(shell, config):
    arguments = (config, "--config", "searcher.max_trials=1", "--json")
    outcome = shell("det", "preview-search", *arguments)
    assert json.loads(outcome.out) == {
        "unit": "batches",
        "rows": [{"bracket": 1, "trials": 1, "length": 900}],
        "trials": 1,
        "total": 900,
    }


def test_what_cannot_be_planned_is_an_error_of_the_config(shell, tmp_path):
    (tmp_path / "c.yaml").write_text(
        "entrypoint: m:T\nsearcher: {name: adaptive_asha, metric: a, max_trials: 1}\n"
    )
    outcome = shell("detbuild", "preview-search", str(tmp_path / "c.yaml"))
    assert (outcome.code, outcome.out) == (2, "")
    assert "needs max_length, or max_time and time_metric" in outcome.err
