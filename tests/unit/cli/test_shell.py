from __future__ import annotations

from dataclasses import replace

import pytest

from tests.experiments import write_experiment
from tests.fakes import gpus, run_for_ever


@pytest.fixture
def docker(shell, tmp_path, monkeypatch):
    """A `docker` command that says what it was asked and ends with 3."""
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$@"\nexit 3\n')
    program.chmod(0o755)
    shell.environ["PATH"] = f"{program.parent}:/usr/bin:/bin"
    shell.engine.program = run_for_ever
    monkeypatch.setattr("detbuild.controller.containers.nvidia_smi", lambda: "")
    shell.engine.images["sha256:" + "a" * 64] = shell.engine.images[shell.engine.add_image("x:1")]
    created = []
    create = shell.engine.create

    def noting(spec):
        created.append(spec)
        return create(spec)

    shell.engine.create = noting
    return created


def test_a_command_that_the_image_has_not_is_named(shell, docker):
    write_experiment(shell.home, config={"resources": {"slots_per_trial": 0}})
    inspect = shell.engine.inspect
    shell.engine.inspect = lambda name: replace(inspect(name), error="exec: not found")
    outcome = shell("detbuild", "run", "1", "--", "evaluate")
    assert (outcome.code, outcome.err.splitlines()[0]) == (
        4,
        "error: evaluate cannot be started in the image of experiment 1",
    )
    assert shell.engine.containers == {}


def test_a_command_runs_in_the_image_and_its_exit_code_is_the_answer(shell, docker):
    write_experiment(shell.home, config={"resources": {"slots_per_trial": 0}})
    outcome = shell("detbuild", "run", "1", "--", "python3", "evaluate.py", "--slots")
    (spec,) = docker
    assert (spec.image, spec.entrypoint, spec.command) == (
        "sha256:" + "a" * 64,
        ("python3",),
        ("evaluate.py", "--slots"),
    )
    assert (outcome.code, spec.stdin, spec.terminal) == (3, True, False)
    assert outcome.out.startswith("start --attach --interactive ")
    assert not shell.engine.containers


def test_a_shell_is_one_of_the_image(shell, docker):
    write_experiment(shell.home, config={"resources": {"slots_per_trial": 0}})
    for words in (("detbuild", "shell", "1/1"), ("det", "shell", "start", "1")):
        assert shell(*words).code == 3
    assert [spec.entrypoint for spec in docker] == [("sh",), ("sh",)]
    assert all(spec.env["DETBUILD_RUN_DIR"] for spec in docker)


def test_a_person_gets_no_gpu_that_the_home_may_not_use(shell, docker):
    write_experiment(shell.home)
    shell.engine.engine_info = gpus("0")
    (shell.home / "config.yaml").write_text("gpus: []\n")
    outcome = shell("detbuild", "run", "1", "--", "true")
    assert (outcome.code, docker) == (4, [])
    assert "detbuild may use 0 of the 1 on this host" in outcome.err


def test_gpus_that_are_not_there_are_an_error_and_may_be_done_without(shell, docker):
    write_experiment(shell.home)
    outcome = shell("detbuild", "run", "1", "--", "true")
    assert (outcome.code, docker) == (4, [])
    assert outcome.err.startswith("error: 1 GPU requested, but no GPU was found on this host\n")
    assert "--slots 0" in outcome.err
    assert shell("detbuild", "run", "1", "--slots", "0", "--", "true").code == 3


def test_what_cannot_be_visited_says_why(shell, docker):
    write_experiment(shell.home, local=True)
    assert "ran without a container" in shell("detbuild", "shell", "1").err
    write_experiment(shell.home)
    del shell.engine.images["sha256:" + "a" * 64]
    assert "the image of experiment 2 was removed" in shell("detbuild", "shell", "2").err
    shell.environ["PATH"] = "/nowhere"
    assert "command `docker` not found" in shell("detbuild", "shell", "2").err
