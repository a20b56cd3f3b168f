from __future__ import annotations

import json

import pytest

from detbuild.store.state import load
from tests.experiments import write_experiment


@pytest.fixture
def folder(shell):
    return write_experiment(shell.home)


def test_filters_choose_lines_and_each_goes_to_the_stream_it_came_from(shell, folder):
    outcome = shell("detbuild", "logs", "1", "--level", "warning")
    assert (outcome.out, outcome.err) == (
        "[rank=1] WARNING: slow\n[rank=1] because\n",
        "ERROR: broken\n  at line 3\n",
    )
    assert shell("det", "t", "logs", "1", "--rank-id", "1").err == ""
    assert shell("det", "e", "logs", "1", "--stdtype", "stderr").out == ""
    assert (
        shell("detbuild", "logs", "1", "--stderr", "--level", "ERROR").out == "ERROR: broken\n  at line 3\n"
    )
    assert shell("det", "t", "logs", "1", "--container-id", "other").out == ""


def test_head_and_tail_count_the_lines_that_were_chosen(shell, folder):
    assert shell("detbuild", "logs", "1", "--rank-id", "1", "--tail", "1").out == "[rank=1] because\n"
    assert shell("detbuild", "logs", "1", "--rank-id", "1", "--head", "1").out == "[rank=1] WARNING: slow\n"


def test_for_programs_each_line_is_an_object_with_the_documented_keys(shell, folder):
    lines = [json.loads(line) for line in shell("detbuild", "logs", "1", "--json").out.splitlines()]
    assert lines[1] == {
        "trial": 1,
        "run": 0,
        "container": "c1ffee",
        "stdtype": "stdout",
        "rank": 1,
        "level": "WARNING",
        "message": "[rank=1] WARNING: slow",
    }
    text = shell("detbuild", "logs", "--help").out
    assert [key for key in lines[1] if f'"{key}"' not in text] == []


def test_times_choose_runs(shell, folder):
    run = load(folder).trials[1].runs[0]
    assert shell("detbuild", "logs", "1", "--timestamp-after", str(run.ended + 1)).out == ""
    assert shell("detbuild", "logs", "1", "--timestamp-after", "2001-01-01T00:00:00Z").out != ""
    assert shell("detbuild", "logs", "1", "--timestamp-before", "2001-01-01").out == ""
    assert shell("detbuild", "logs", "1", "--timestamp-before", "yesterday").code == 2


def test_following_with_a_filter_ends_with_the_trial(shell, folder):
    assert shell("detbuild", "logs", "1", "-f", "--rank-id", "1").out.endswith("because\n")


def test_filters_of_a_cluster_are_said_to_have_no_effect(shell, folder):
    outcome = shell("det", "t", "logs", "1", "--agent-id", "a", "--source", "master")
    assert outcome.out.startswith("INFO: begun")
    assert "--agent-id has no effect" in outcome.err
    assert "--source has no effect" in outcome.err
