from __future__ import annotations

import json
import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from determined._contract import checkpoints as contract_checkpoints
from determined._contract.run_info import ENTRY, RunInfo
from determined.exec._process import worker_environment

BASE = {"HOME": "/tmp", "USER": "somebody", "PATH": "/bin"}


def test_determined_s_variables(make_run: Callable[..., RunInfo]) -> None:
    info = make_run(run=2, slots=2, hparams={"lr": 0.1}, config={"name": "mnist"})
    found = worker_environment(info, {**BASE, "PYTHONHASHSEED": "7"})
    machine = found.pop("DET_CONTAINER_ID"), found.pop("DET_RESOURCES_ID")
    assert machine[0] == machine[1]
    assert found == {
        **BASE,
        "DET_AGENT_ID": "detbuild",
        "DET_ALLOCATION_ID": "3.7.2",
        "DET_CLUSTER_ID": "detbuild",
        "DET_EXPERIMENT_CONFIG": '{"name": "mnist"}',
        "DET_EXPERIMENT_ID": "3",
        "DET_HPARAMS": '{"lr": 0.1}',
        "DET_RESOURCES_TYPE": "docker-container",
        "DET_RUN_DIR": info.run_dir,
        "DET_SLOT_IDS": "[0, 1]",
        "DET_STEPS_COMPLETED": "0",
        "DET_TASK_ID": "3.7",
        "DET_TASK_TYPE": "TRIAL",
        "DET_TRIAL_ID": "7",
        "DET_TRIAL_RUN_ID": "2",
        "DET_TRIAL_SEED": "42",
        "DET_WORKDIR": info.context_dir,
        "PYTHONFAULTHANDLER": "1",
        "PYTHONHASHSEED": "7",
        "PYTHONUNBUFFERED": "1",
        "TF_CPP_MIN_LOG_LEVEL": "1",
    }


@pytest.mark.parametrize(("warm_start", "steps"), [(False, "12"), (True, "0")])
def test_a_run_that_resumes_knows_from_where(
    make_run: Callable[..., RunInfo], warm_start: bool, steps: str
) -> None:
    with contract_checkpoints.store(Path(make_run().checkpoint_dir), {"steps_completed": 12}) as (_, uuid):
        pass
    found = worker_environment(make_run(checkpoints=(uuid, "older"), warm_start=warm_start), BASE)
    assert (found["DET_LATEST_CHECKPOINT"], found["DET_STEPS_COMPLETED"]) == (uuid, steps)


def test_a_value_that_linux_would_refuse_is_left_out(make_run: Callable[..., RunInfo]) -> None:
    info = make_run(config={"data": "x" * 200_000}, hparams={"lr": 1})
    found = worker_environment(info, BASE)
    assert "DET_EXPERIMENT_CONFIG" not in found
    assert json.loads(found["DET_HPARAMS"]) == {"lr": 1}


@pytest.mark.parametrize("home", ["/", "", "/no/such/home"])
def test_a_user_without_a_home_gets_one(
    make_run: Callable[..., RunInfo], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: str
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = worker_environment(make_run(), {**BASE, "HOME": home})
    assert found["HOME"] == str(tmp_path / f"home-{os.getuid()}")
    assert Path(found["HOME"]).is_dir()


def test_a_user_unknown_to_the_image_gets_a_name(
    make_run: Callable[..., RunInfo], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    found = worker_environment(make_run(), {"HOME": "/tmp"})
    assert found["USER"] == found["LOGNAME"] == f"uid{os.getuid()}"


def test_a_python_path_of_the_user_s_keeps_the_harness(make_run: Callable[..., RunInfo]) -> None:
    found = worker_environment(make_run(), {**BASE, "PYTHONPATH": "/mine"})
    assert found["PYTHONPATH"] == f"/mine:{ENTRY.parent.parent}"
