from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from tests.experiments import write_experiment
from tests.fakes import gpus, run_for_ever


@pytest.fixture
def submitted(shell, project) -> str:
    """The image of an experiment that is over, two days old."""
    assert shell("detbuild", "create", "const.yaml", ".", "-q").code == 0
    (image,) = (image for image in shell.engine.images.values() if "detbuild.context" in image.labels)
    image.created = time.time() - 2 * 86400
    return image.id


def listed(shell) -> list[dict]:
    return json.loads(shell("detbuild", "image", "list", "--json").out)


def test_images_of_experiments_are_listed_and_no_others(shell, submitted: str) -> None:
    (row,) = listed(shell)
    assert (row["id"], row["containers"], row["experiments"]) == (submitted, 0, [])
    table = shell("detbuild", "image", "list").out
    assert submitted[7:19] in table
    assert shell("detbuild", "image", "list", "-q").out == f"{submitted}\n"


def test_unused_images_are_removed_and_bases_stay(shell, submitted: str) -> None:
    before = len(shell.engine.images)
    outcome = shell("detbuild", "image", "prune")
    assert (outcome.code, outcome.out) == (0, f"{submitted}\n")
    assert "removed 1 of 1 image, freeing 1.0 MB" in outcome.err
    assert len(shell.engine.images) == before - 1
    assert listed(shell) == []


def test_a_dry_run_removes_nothing(shell, submitted: str) -> None:
    assert shell("detbuild", "image", "prune", "--dry-run").out == f"{submitted}\n"
    assert len(listed(shell)) == 1


def test_what_is_young_stays_unless_it_is_asked_for(shell, submitted: str) -> None:
    shell.engine.images[submitted].created = time.time() - 60
    assert shell("detbuild", "image", "prune").out == ""
    assert shell("detbuild", "image", "prune", "--older-than", "0").out == f"{submitted}\n"


def test_a_base_that_is_there_is_enough(shell):
    outcome = shell("detbuild", "base", "ensure")
    assert outcome.code == 0
    assert shell.engine.image_id(outcome.out.strip()) is not None
    assert shell.engine.effects.done == []


def test_the_table_says_which_bases_are_there(shell):
    rows = json.loads(shell("detbuild", "base", "list", "--json").out)
    present = [row["reference"] for row in rows if row["present"]]
    assert "detbuild-base:cpu-debian12-py3.11" in present
    assert len(present) < len(rows)
    assert shell("detbuild", "base", "list").out.splitlines()[0].split() == [
        "BASE",
        "PYTHON",
        "CUDA",
        "PRESENT",
    ]


def test_a_bootstrapped_base_is_imported_under_its_tag(shell, monkeypatch):
    monkeypatch.setattr("detbuild.engine.bases.bootstrap_tag", lambda _images: "detbuild-base:made")
    monkeypatch.setattr("detbuild.engine.bases.bootstrap", lambda _images, path: path.write_bytes(b"tar"))
    assert shell("detbuild", "base", "bootstrap").out == "detbuild-base:made\n"
    assert shell.engine.effects.done == ["import detbuild-base:made"]


@pytest.fixture
def docker(shell, tmp_path, monkeypatch):
    """A `docker` command that says what it was asked and ends with 3."""
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$@"\nexit 3\n')
    program.chmod(0o755)
    shell.environ["PATH"] = f"{program.parent}:/usr/bin:/bin"
    shell.engine.program = run_for_ever
    monkeypatch.setattr("detbuild.runtime.shell.nvidia_smi", lambda: "")
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
