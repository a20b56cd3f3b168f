from __future__ import annotations

import json

import pytest

from detbuild.errors import BuildError
from detbuild.store.home import Home
from determined._contract.run_info import RunInfo
from tests.unit.cli.shells import fail, train_until_told

CREATE = ("detbuild", "create", "const.yaml", ".")


def test_create_builds_submits_and_says_what_comes_next(shell, project):
    outcome = shell(*CREATE)
    assert (outcome.code, outcome.out) == (0, "Created experiment 1\n")
    assert outcome.err.endswith("next:\n  detbuild logs 1 -f\n  detbuild wait 1\n")
    assert len(shell.engine.built) == 1


def test_quiet_prints_the_id_alone(shell, project):
    outcome = shell(*CREATE, "-q")
    assert (outcome.code, outcome.out, outcome.err) == (0, "1\n", "")


def test_following_ends_with_what_is_best_and_where_it_lies(shell, project):
    outcome = shell(*CREATE, "-f")
    assert outcome.code == 0
    for part in (
        "Created experiment 1",
        "[trial 1] hello from the trial",
        "trial 1  batch 1  validation  validation_loss=0.25",
        "experiment 1 completed",
        "  best validation  validation_loss=0.25 at batch 1",
        f"  checkpoint       {shell.home}/experiments/1/checkpoints/",
        f"  metrics, logs    {shell.home}/experiments/1/runs",
    ):
        assert part in outcome.out
    assert "detbuild checkpoint download " in outcome.err


def test_the_context_is_the_current_directory_unless_said_otherwise(shell, project):
    assert shell("detbuild", "create", "const.yaml").code == 0
    assert [entry.path for entry in shell.engine.built[0].trees["context"].entries] == [
        "const.yaml",
        "model_def.py",
    ]


def test_the_hosts_config_lies_below_templates_and_reaches_the_container(shell, project):
    (shell.home / "templates").mkdir(parents=True)
    (shell.home / "templates" / "mine.yaml").write_text("environment: {environment_variables: [B=template]}")
    (shell.home / "config.yaml").write_text(
        "task_container_defaults:\n"
        "  environment_variables: [A=host, B=host]\n"
        "  startup_hook: date\n"
        "  network_mode: host\n"
    )
    words = ("render", "const.yaml", ".", "--template", "mine", "--json")
    masked = json.loads(shell("detbuild", *words).out)
    assert {name: masked["container"]["env"][name] for name in "AB"} == {"A": "********", "B": "********"}
    plan = json.loads(shell("detbuild", *words, "--show-secrets").out)
    assert plan["container"]["network"] == "host"
    assert {name: plan["container"]["env"][name] for name in "AB"} == {"A": "host", "B": "template"}
    assert shell(*CREATE, "--template", "mine", "-f").code == 0
    run = RunInfo.load(Home.open(shell.home).experiment(1).run(1, 0).path)
    assert run.startup_hook == plan["run"]["startup_hook"] == "date"
    assert run.config["environment"]["environment_variables"]["cpu"] == ["A=host", "B=host", "B=template"]


def test_a_wrong_config_of_the_host_stops_a_submission(shell, project):
    shell.home.mkdir()
    (shell.home / "config.yaml").write_text("gpus: [0]\ncpu_trial: 2\n")
    outcome = shell(*CREATE)
    assert outcome.code == 2
    assert f"{shell.home}/config.yaml:2:1: cpu_trial: unknown field of the host's config" in outcome.err
    assert Home.open(shell.home).ids() == ()


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_what_a_submission_gives_away_is_said_and_what_it_cannot_mount_refused(shell, project, dry):
    words = ("--config", "environment.add_capabilities=[cap_sys_admin, ALL]")
    missing = ("--config", "bind_mounts=[{host_path: /no/such/place, container_path: /m}]")
    outcome = shell(*CREATE, *words, *missing, *dry)
    assert outcome.code == 2
    assert "warning: environment.add_capabilities: cap_sys_admin gives the trial mounts" in outcome.err
    assert "warning: environment.add_capabilities: ALL gives the trial all of root's rights" in outcome.err
    assert "bind_mounts[0].host_path: /no/such/place does not exist" in outcome.err
    assert shell.engine.built == []
    assert Home.open(shell.home).ids() == ()


def test_the_defaults_of_containers_are_not_those_of_a_local_run(shell, project):
    shell.home.mkdir()
    (shell.home / "config.yaml").write_text("task_container_defaults: {bind_mounts: [{host_path: /no/such}]}")
    (project / "train.py").write_text("")
    words = ("--config", "entrypoint=python3 train.py", "--local", "-q")
    assert shell("detbuild", "create", "const.yaml", ".", *words).code == 0


@pytest.mark.parametrize("command", ["render", "build"])
def test_an_image_is_built_of_the_config_over_a_template(shell, project, command):
    template = project / "template.yaml"
    template.write_text("environment: {image: some/image:3}\n")
    shell.engine.add_image("some/image:3")
    outcome = shell("detbuild", command, "const.yaml", ".", "--template", str(template))
    assert outcome.code == 0
    if command == "build":
        assert shell.engine.built[0].base_image == "some/image:3"
    else:
        assert "FROM some/image:3" in outcome.out


def test_nothing_is_built_when_nothing_changed(shell, project):
    shell(*CREATE)
    outcome = shell(*CREATE)
    assert "unchanged: nothing to build" in outcome.err
    assert len(shell.engine.built) == 1


def test_an_experiment_that_ends_in_error_has_exit_code_6(shell, project):
    shell.engine.program = fail
    outcome = shell(*CREATE, "-f")
    assert outcome.code == 6
    assert "experiment 1 error" in outcome.out
    assert "no module named model_def" in outcome.out


def test_a_cancelled_experiment_has_exit_code_7(shell, project, monkeypatch):
    shell.engine.program = train_until_told
    ask = Home.new_experiment

    def cancelled(home):
        folder = ask(home)
        (folder.path / "requests").mkdir()
        folder.request("cancel")
        return folder

    monkeypatch.setattr(Home, "new_experiment", cancelled)
    outcome = shell(*CREATE, "-f")
    assert outcome.code == 7
    assert "experiment 1 canceled" in outcome.out


def test_a_build_that_fails_leaves_no_experiment(shell, project):
    shell.engine.build_error = BuildError("RUN pip install failed", hint="see above")
    outcome = shell(*CREATE)
    assert (outcome.code, outcome.out) == (5, "")
    assert outcome.err.endswith("error: RUN pip install failed\n  hint: see above\n")
    assert shell("detbuild", "list", "-q").out == ""


def test_an_engine_that_is_away_is_named(shell, project):
    shell.engine.go_away()
    outcome = shell(*CREATE)
    assert (outcome.code, outcome.out) == (4, "")
    assert "error: cannot reach Docker Engine" in outcome.err


def test_overrides_and_includes_reach_the_submission(shell, project, tmp_path):
    (tmp_path / "extra.py").write_text("x = 1\n")
    assert shell(*CREATE, "--config", "name=other", "-i", str(tmp_path / "extra.py")).code == 0
    assert "extra.py" in [entry.path for entry in shell.engine.built[0].trees["context"].entries]
    assert json.loads(shell("detbuild", "list", "--json").out)[0]["name"] == "other"


def test_test_mode_is_followed_to_its_end(shell, project):
    outcome = shell(*CREATE, "--test")
    assert "experiment 1 completed" in outcome.out
    assert json.loads(shell("detbuild", "list", "--json").out)[0]["test_mode"] is True


@pytest.mark.parametrize(
    "words",
    [
        ("det", "e", "create", "const.yaml", ".", "-f"),
        ("det", "experiment", "create", "const.yaml", ".", "--follow-first-trial"),
        ("det", "e", "create", "-f", "const.yaml", "."),
        ("det", "e", "create", "--test-mode", "const.yaml", "."),
    ],
)
def test_determineds_words_do_the_same(shell, project, words):
    outcome = shell(*words)
    assert outcome.code == 0
    assert outcome.out.startswith("Created experiment 1\n")
    assert "experiment 1 completed" in outcome.out


@pytest.mark.parametrize("option", [("--publish", "x"), ("--project_id", "3")])
def test_options_without_a_meaning_here_say_what_to_do_instead(shell, project, option):
    outcome = shell("det", "e", "create", "const.yaml", ".", *option)
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: {option[0]} is not supported: ")
    assert shell.engine.built == []


def test_an_experiment_may_be_created_paused(shell, project):
    outcome = shell(*CREATE, "--paused")
    assert (outcome.code, outcome.err.endswith("next:\n  detbuild activate 1\n")) == (0, True)
    assert shell.engine.containers == {}
    assert [request.verb for request in Home.open(shell.home).folder(1).inbox().after(0)] == ["pause"]


@pytest.mark.parametrize("option", ["--local", "-f", "-t"])
def test_what_is_created_paused_has_nothing_to_show(shell, project, option):
    outcome = shell(*CREATE, "--paused", option)
    assert (outcome.code, "--paused cannot be combined" in outcome.err) == (2, True)


def test_a_dry_run_shows_the_plan_and_touches_nothing(shell, project):
    shell.engine.go_away()
    outcome = shell(*CREATE, "--dry-run")
    assert outcome.code == 0
    for part in (
        "FROM ",
        "model_def.py",
        '"name": "detbuild-00000000-0-1-0"',
        '"entrypoint": "model_def:Tiny"',
    ):
        assert part in outcome.out
    assert shell("detbuild", "list", "-q").out == ""


def test_render_prints_the_plan_for_programs(shell, project):
    document = json.loads(shell("detbuild", "render", "const.yaml", ".", "--json").out)
    assert document["tag"].startswith("detbuild:")
    assert document["dockerfile"].splitlines()[-1].startswith("ENTRYPOINT [")
    assert [entry["path"] for entry in document["context"]["kept"]] == ["const.yaml", "model_def.py"]
    assert document["run"]["hparams"] == {}


def test_build_prints_id_and_tag_of_the_image(shell, project):
    outcome = shell("detbuild", "build", "const.yaml", ".")
    (plan,) = shell.engine.built
    assert outcome.out == f"{shell.engine.image_id(plan.tag)}  {plan.tag}\n"
    assert shell("detbuild", "build", "const.yaml", ".", "-q").out == f"{shell.engine.image_id(plan.tag)}\n"
    assert shell("detbuild", "list", "-q").out == ""


def test_ctrl_c_while_following_leaves_the_experiment_and_says_how_to_come_back(shell, project, monkeypatch):
    def interrupted(_home, _id, _emit, *, since):
        raise KeyboardInterrupt

    monkeypatch.setattr("detbuild.controller.requests.follow", interrupted)
    outcome = shell(*CREATE, "-f")
    assert outcome.code == 130
    assert outcome.err.endswith(
        "detached; experiment 1 keeps running\n  attach: detbuild logs 1 -f\n  cancel: detbuild cancel 1\n"
    )


def test_ctrl_c_while_building_leaves_nothing(shell, project, monkeypatch):
    def interrupted(_plan, _emit):
        raise KeyboardInterrupt

    monkeypatch.setattr(shell.engine, "build", interrupted)
    outcome = shell(*CREATE, "-f")
    assert (outcome.code, outcome.out) == (130, "")
    assert outcome.err.endswith("interrupted: no experiment was created\n")
    assert shell("detbuild", "list", "-q").out == ""


def test_local_and_dry_run_exclude_each_other(shell, project):
    assert shell(*CREATE, "--local", "--dry-run").code == 2


@pytest.fixture
def model_dir(tmp_path):
    directory = tmp_path / "model"
    (directory / "__pycache__").mkdir(parents=True)
    (directory / "model_def.py").write_text("x = 1\n")
    (directory / "notes.log").write_text("")
    (directory / ".detignore").write_text("*.log\n")
    return directory


def test_what_goes_in_and_which_rule_keeps_the_rest_out(shell, model_dir):
    outcome = shell("detbuild", "context", str(model_dir))
    assert (outcome.code, outcome.err) == (0, "")
    assert [line.split(maxsplit=2) for line in outcome.out.splitlines()] == [
        ["6", "B", "model_def.py"],
        ["out", ".detignore", "(`.detignore`, built in)"],
        ["out", "__pycache__/", "(`__pycache__/`, built in)"],
        ["out", "notes.log", "(`*.log`, .detignore:1)"],
        ["in", "the", "image: 1 file, 6 B; left out: 3 paths"],
    ]


def test_the_same_for_programs(shell, model_dir):
    document = json.loads(shell("detbuild", "context", str(model_dir), "--json").out)
    assert document["kept"] == [{"path": "model_def.py", "kind": "file", "size": 6}]
    assert document["left_out"][2] == {"path": "notes.log", "rule": "*.log", "where": ".detignore:1"}
    assert (document["files"], document["size"], document["warnings"]) == (1, 6, [])


def test_an_included_file_is_listed_too(shell, model_dir, tmp_path):
    (tmp_path / "extra.py").write_text("")
    assert "extra.py" in shell("detbuild", "context", str(model_dir), "-i", str(tmp_path / "extra.py")).out


def test_a_file_is_not_a_context(shell, model_dir):
    outcome = shell("detbuild", "context", str(model_dir / "model_def.py"))
    assert (outcome.code, outcome.out) == (3, "")
    assert "  hint: " in outcome.err


def test_the_home_directory_is_refused(shell, tmp_path):
    assert shell("detbuild", "context", str(tmp_path)).code == 3


def test_of_many_paths_the_largest_are_named_and_all_on_request(shell, model_dir):
    for number in range(60):
        (model_dir / f"f{number:02}.txt").write_bytes(b"x" * number)
        (model_dir / f"n{number:02}.log").touch()
    found = shell("detbuild", "context", str(model_dir)).out.splitlines()
    assert found[0] == "in the image: 61 files, 1.8 kB; the largest:"
    assert [line.split() for line in found[1:11]] == [
        [str(number), "B", f"f{number:02}.txt"] for number in range(59, 49, -1)
    ]
    assert found[11] == "left out: 63 paths"
    assert found[-2].strip() == "... and 53 more"
    assert "--all" in found[-1]
    assert len(shell("detbuild", "context", str(model_dir), "--all").out.splitlines()) == 61 + 63 + 1


def test_a_context_of_a_terabyte_is_refused_before_it_is_read(shell, project):
    with (project / "huge.bin").open("wb") as file:
        file.truncate(1 << 40)
    outcome = shell("detbuild", "create", "const.yaml", ".", "--dry-run")
    assert (outcome.code, outcome.out) == (3, "")
    assert (
        "has 1.1 TB in 3 files; the limit is 10.0 GB. The largest files:\n       1.1 TB  huge.bin\n"
        in outcome.err
    )
    assert "--allow-any-context" in outcome.err
    (project / ".detignore").write_text("*.bin\n")
    assert shell("detbuild", "create", "const.yaml", ".", "--dry-run").code == 0


def test_the_refusal_of_a_large_context_can_be_lifted(shell, project, monkeypatch):
    monkeypatch.setattr("detbuild.context.walk.LARGEST_CONTEXT", 10)
    assert shell("detbuild", "create", "const.yaml", ".").code == 3
    for command in ("create", "render", "build"):
        assert shell("detbuild", command, "const.yaml", ".", "--allow-any-context").code == 0
