from __future__ import annotations

import json

import pytest

from detbuild.config.parse import parse_config
from tests.experiments import write_experiment
from tests.plugins import write_package

GOOD = "entrypoint: model_def:T\nsearcher: {name: single, metric: loss, max_length: {batches: 3}}\n"


def test_a_config_is_shown_with_its_defaults(shell, tmp_path):
    (tmp_path / "c.yaml").write_text(GOOD)
    check = ("detbuild", "config", "check", str(tmp_path / "c.yaml"), "--config", "max_restarts=2")
    outcome = shell(*check, "--json")
    assert outcome.code == 0
    document = json.loads(outcome.out)["config"]
    assert (document["entrypoint"], document["max_restarts"], document["scheduling_unit"]) == (
        "model_def:T",
        2,
        100,
    )
    assert parse_config(shell(*check).out).resolved() == document


def test_every_value_has_its_source(shell, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (shell.home / "templates").mkdir(parents=True)
    (shell.home / "templates" / "base.yaml").write_text("debug: true\nrecords_per_epoch: 7\n")
    (shell.home / "config.yaml").write_text("task_container_defaults:\n  preemption_timeout: 60\n")
    (tmp_path / "c.yaml").write_text(GOOD + "scheduling_unit: 5\n")
    check = ("detbuild", "config", "check", "c.yaml", "--template", "base", "--config", "max_restarts=2")
    sources = json.loads(shell(*check, "--json").out)["sources"]
    assert {
        "entrypoint": "c.yaml:1",
        "searcher.max_length.batches": "c.yaml:2",
        "scheduling_unit": "c.yaml:3",
        "max_restarts": "--config max_restarts",
        "debug": "template base:1",
        "records_per_epoch": "template base:2",
        "preemption_timeout": "host's config.yaml:2",
        "name": "chosen at submission",
        "checkpoint_policy": "default",
    }.items() <= sources.items()
    lines = shell(*check).out.splitlines()
    shown = [line.partition("  # ")[2] for line in lines]
    assert [source for source in shown if source] == list(sources.values())


def test_what_has_no_effect_in_the_hosts_config_is_said(shell, tmp_path):
    shell.home.mkdir()
    (shell.home / "config.yaml").write_text("port: 8080\n")
    (tmp_path / "c.yaml").write_text(GOOD)
    outcome = shell("detbuild", "config", "check", str(tmp_path / "c.yaml"))
    assert outcome.code == 0
    assert "ignored in config.yaml of the home, no effect on a single host: port\n" in outcome.err


def test_secrets_are_not_shown(shell, tmp_path):
    (tmp_path / "c.yaml").write_text(
        GOOD + "environment: {registry_auth: {username: me, password: hunter2}}\n"
    )
    assert "hunter2" not in shell("detbuild", "config", "check", str(tmp_path / "c.yaml")).out


def test_every_problem_is_named_with_its_place(shell, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "entrypoin: model_def:T\nsearcher: {name: single, metric: loss, max_length: {batches: x}}\n"
    )
    outcome = shell("detbuild", "config", "check", str(path))
    assert (outcome.code, outcome.out) == (2, "")
    assert f"{path}:1:1: entrypoin: " in outcome.err
    assert "did you mean `entrypoint`?" in outcome.err
    assert f"\n  {path}:2:62: searcher.max_length.batches: " in outcome.err


def test_what_is_accepted_without_effect_is_warned_of_on_stderr(shell, tmp_path):
    (tmp_path / "c.yaml").write_text(GOOD + "workspace: a\nproject: b\n")
    outcome = shell("detbuild", "config", "check", str(tmp_path / "c.yaml"))
    assert outcome.code == 0
    assert outcome.err.startswith("warning: ")
    parse_config(outcome.out)


def test_the_config_of_an_experiment_can_be_shown(shell):
    folder = shell.experiment()
    folder.config_file.write_text(
        json.dumps(
            {
                "entrypoint": "m:T",
                "searcher": {"name": "single", "metric": "loss", "max_length": {"batches": 3}},
            }
        )
    )
    assert json.loads(shell("det", "e", "config", "1").out)["entrypoint"] == "m:T"


def test_the_config_of_a_trial_that_a_program_handed_over_has_no_entrypoint(shell):
    write_experiment(shell.home, local=True, config={"searcher": {"name": "single"}})
    outcome = shell("det", "experiment", "config", "1")
    assert (outcome.code, outcome.err) == (0, "")
    assert json.loads(outcome.out)["entrypoint"] is None


def test_the_schema_is_written_to_stdout_or_a_file(shell, tmp_path):
    outcome = shell("detbuild", "config", "schema")
    assert (outcome.code, outcome.err) == (0, "")
    assert json.loads(outcome.out)["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    path = tmp_path / "schema.json"
    assert shell("detbuild", "config", "schema", "-o", str(path)).out == f"{path}\n"
    assert path.read_text() == outcome.out


def test_a_package_that_cannot_be_in_the_schema_is_named(shell, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path / "site")
    package = write_package(tmp_path / "site", "detbuild.storages", "odd", "raise ValueError('odd')")
    outcome = shell("detbuild", "config", "schema")
    assert outcome.err == f"warning: `odd` is left out: {package} cannot be used: ValueError: odd\n"
    assert '"odd"' not in outcome.out


def test_a_schema_that_cannot_be_written_is_a_plain_error(shell, tmp_path):
    outcome = shell("detbuild", "config", "schema", "-o", str(tmp_path / "none" / "schema.json"))
    assert outcome.code not in {0, 1}
    assert str(tmp_path / "none") in outcome.err


@pytest.mark.parametrize(
    ("words", "cause", "hint"),
    [
        (("create", ".", "const.yaml"), "error: . is a directory, not an experiment config", "CONFIG DIR"),
        (("create", "const.yml", "."), "cannot read the experiment config const.yml", "`const.yaml`"),
        (("config", "check", "cosnt.yaml"), "cannot read the experiment config cosnt.yaml", "`const.yaml`"),
        (("preview-search", "nothing-like-it"), "cannot read the experiment config nothing-like-it", ""),
    ],
)
def test_a_config_that_is_not_there_is_answered_with_what_was_likely_meant(
    shell, project, words, cause, hint
):
    outcome = shell("detbuild", *words)
    assert (outcome.code, outcome.out) == (2, "")
    assert cause in outcome.err
    assert hint in outcome.err
    assert ("hint: " in outcome.err) == bool(hint)


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
