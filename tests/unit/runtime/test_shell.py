from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from detbuild.errors import EngineError
from detbuild.runtime.labels import EXPERIMENT_LABEL, GPU_LABEL
from detbuild.runtime.plan import RunOwner
from detbuild.runtime.shell import create_shell, plan_shell
from detbuild.store.experiment_dir import config_of
from tests.experiments import write_experiment
from tests.fakes import INFO
from tests.faults.training import Rig, rig

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tried(tmp_path: Path) -> Rig:
    return rig(tmp_path / "home", changes={"resources": {"slots_per_trial": 0}})


def test_a_shell_is_created_and_not_started(tried: Rig) -> None:
    container = create_shell(tried.engine, tried.home.id, tried.folder, ["bash"], slots=0)
    found = tried.engine.inspect(container)
    assert found is not None
    assert found.status == "created"


def test_a_shell_needs_the_image(tried: Rig) -> None:
    tried.engine.images.clear()
    with pytest.raises(EngineError, match="the image of experiment 1 was removed"):
        create_shell(tried.engine, tried.home.id, tried.folder, ["bash"], slots=0)


CONFIG = {
    "environment": {"environment_variables": ["A=b"], "add_capabilities": ["SYS_PTRACE"]},
    "bind_mounts": [{"host_path": "/data", "container_path": "data", "read_only": True}],
    "resources": {"slots_per_trial": 0, "shm_size": 5},
}


@pytest.fixture
def folder(tmp_path):
    return write_experiment(tmp_path / "home", config=CONFIG)


def visit(folder, command=("python3", "-V"), **options):
    config = config_of(folder)
    owner = RunOwner(home_id="0" * 8, folder=folder, header=folder.header())
    return plan_shell(config, owner, INFO, command, **options)


def test_the_command_takes_the_place_of_the_harness(folder):
    spec = visit(folder)
    assert (spec.entrypoint, spec.command) == (("python3",), ("-V",))


def test_user_variables_mounts_and_capabilities_are_those_of_a_trial(folder):
    spec = visit(folder)
    assert (spec.user, dict(spec.env), spec.shm_size) == ("1:1", {"A": "b"}, 5)
    assert [mount.target for mount in spec.mounts] == [
        "/run/detbuild/checkpoints",
        "/run/determined/workdir/data",
    ]
    assert (spec.cap_add, spec.cap_drop) == (("SYS_PTRACE",), ("ALL",))


def test_a_run_is_told_of_and_cannot_be_changed(folder):
    spec = visit(folder, run=(1, 0))
    assert spec.env["DETBUILD_RUN_DIR"] == "/run/detbuild/run"
    assert [mount.read_only for mount in spec.mounts if mount.target == "/run/detbuild/run"] == [True]


def test_gpus_are_held_by_the_label_that_everybody_looks_at(folder):
    spec = visit(folder, gpus=("vendor/gpu=0", "vendor/gpu=1"))
    assert (spec.gpus, spec.gpu_driver, spec.labels[GPU_LABEL]) == (
        ("vendor/gpu=0", "vendor/gpu=1"),
        "cdi",
        "vendor/gpu=0,vendor/gpu=1",
    )
    assert GPU_LABEL not in visit(folder).labels


def test_a_controller_does_not_take_it_for_a_run(folder):
    labels = visit(folder).labels
    assert EXPERIMENT_LABEL not in labels
    assert (labels["detbuild.shell"], "detbuild.user" in labels) == ("1", True)


def test_two_visits_at_a_time_have_names_of_their_own(folder):
    assert visit(folder).name != visit(folder).name
