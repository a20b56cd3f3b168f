from __future__ import annotations

import json
import tarfile

import pytest

from detbuild.store.annotations import Attributes, read_attributes
from tests.experiments import write_experiment

SECRET = "hunter2-in-the-config"


def test_a_bundle_has_what_a_report_needs_and_no_secret(shell, tmp_path):
    write_experiment(shell.home, config={"data": {"secrets": {"token": SECRET}}})
    outcome = shell("det", "trial", "support-bundle", "1/1", "-o", str(tmp_path / "out"))
    assert outcome.out == f"{tmp_path}/out/det-bundle-trial-1-1.tar.gz\n"
    with tarfile.open(outcome.out.strip()) as archive:
        names = [member.name.partition("/")[2] for member in archive]
        texts = [archive.extractfile(member).read() for member in archive]
    assert {
        "config.json",
        "trial.json",
        "journal.jsonl",
        "runs/1-0/events.jsonl",
        "runs/1-0/stdout.log",
    } <= set(names)
    assert not [name for name, text in zip(names, texts, strict=True) if SECRET.encode() in text]


def test_the_hosts_start_up_hook_stays_on_the_host(shell, tmp_path):
    folder = write_experiment(shell.home)
    header = json.loads((folder.path / "experiment.json").read_text())
    (folder.path / "experiment.json").write_text(json.dumps({**header, "startup_hook": f"login {SECRET}"}))
    outcome = shell("det", "trial", "support-bundle", "1/1", "-o", str(tmp_path / "out"))
    with tarfile.open(outcome.out.strip()) as archive:
        packed = archive.extractfile("det-bundle-trial-1-1/experiment.json").read()
    assert json.loads(packed)["name"] == header["name"]
    assert SECRET not in packed.decode()
    assert {"startup_hook", "context_dir", "host", "user"}.isdisjoint(json.loads(packed))


def test_a_trial_that_is_not_there_gets_no_bundle(shell, tmp_path):
    write_experiment(shell.home)
    assert shell("det", "t", "support-bundle", "1/7", "-o", str(tmp_path / "out")).code == 2
    assert not (tmp_path / "out").exists()


def test_jobs_are_the_experiments_that_have_not_ended_oldest_first(shell):
    for state in ("COMPLETED", None, None):
        write_experiment(shell.home, state=state)
    assert [row["id"] for row in json.loads(shell("det", "job", "list", "--json").out)] == [2, 3]
    assert [line.split()[0] for line in shell("det", "j", "ls").out.splitlines()] == ["ID", "2", "3"]


def test_what_comes_first_is_changed_for_one_or_for_several(shell):
    folders = [write_experiment(shell.home, state=None) for _ in range(2)]
    assert shell("det", "job", "update", "1", "--priority", "3", "-w", "2.5").code == 0
    assert shell("det", "job", "update-batch", "2.priority=7", "1.weight=4").code == 0
    found = [read_attributes(folder.path) for folder in folders]
    assert [(one.priority, one.weight) for one in found] == [(3, 4.0), (7, None)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("update", "1"), "nothing to update"),
        (("update", "1", "--priority", "100"), "priority must be between 1 and 99"),
        (("update-batch", "1.priority=2", "1.color=red"), "'1.color=red' is not a change"),
        (("update-batch",), "missing argument"),
        (("update", "9", "-p", "1"), "there is no experiment 9"),
    ],
)
def test_a_change_that_makes_no_sense_changes_nothing(shell, words, message):
    folder = write_experiment(shell.home, state=None)
    outcome = shell("det", "job", *words)
    assert outcome.code == 2
    assert message in outcome.err
    assert read_attributes(folder.path) == Attributes()


def test_yaml_is_json_and_a_table_is_what_there_is_anyhow(shell):
    write_experiment(shell.home, state=None)
    assert shell("det", "job", "list", "--yaml").out == shell("det", "job", "list", "--json").out
    assert shell("det", "job", "list", "--table").out == shell("det", "job", "list").out


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
    assert shell("det", "job", "list").err == "no experiments are running or waiting\n"
    assert shell("det", "task", "list").err == "no trials are running or waiting\n"
