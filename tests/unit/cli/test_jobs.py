from __future__ import annotations

import json

from tests.experiments import write_experiment


def test_jobs_are_the_experiments_that_have_not_ended_oldest_first(shell):
    for state in ("COMPLETED", None, None):
        write_experiment(shell.home, state=state)
    assert [row["id"] for row in json.loads(shell("det", "job", "list", "--json").out)] == [2, 3]
    assert [line.split()[0] for line in shell("det", "j", "ls").out.splitlines()] == ["ID", "2", "3"]


def test_tasks_are_their_trials(shell):
    write_experiment(shell.home)
    write_experiment(shell.home, [[], []], state=None)
    rows = json.loads(shell("det", "task", "list", "--json").out)
    assert [(row["task"], row["state"], row["container"]) for row in rows] == [
        ("2/1", "RUNNING", "c1ffee"),
        ("2/2", "RUNNING", "c2ffee"),
    ]
    assert "INFO: begun" in shell("det", "task", "logs", "2/2").out


def test_an_idle_host_says_so(shell):
    assert shell("det", "job", "list").err == "nothing runs and nothing waits\n"
    assert shell("det", "task", "list").err == "nothing runs and nothing waits\n"
