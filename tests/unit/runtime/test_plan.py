from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from detbuild.config.parse import config_from_mapping
from detbuild.engine.protocol import ContainerSpec, Device, Mount
from detbuild.runtime.docker import container_paths, container_spec
from detbuild.runtime.plan import RunOwner, RunRequest, plan_run
from detbuild.store.experiment_dir import ExperimentFolder, Header
from determined._contract.run_info import Length, RunInfo

if TYPE_CHECKING:
    from collections.abc import Mapping


HEADER = Header(
    id=3, name="n", context_name="my-model", created=0.0, image="sha256:0", metric="loss", user="1000:1000"
)
FOLDER = ExperimentFolder(Path("/home/experiments/3"))
REQUEST = RunRequest(
    trial_id=1,
    run=2,
    trial_seed=9,
    hparams={"lr": 0.1},
    length=Length("epochs", 2),
    milestones=(1,),
    checkpoints=("new", "old"),
    best_validation=0.5,
)
BASE: Mapping[str, object] = {
    "entrypoint": "model_def:Trial",
    "searcher": {"name": "single", "metric": "loss", "max_length": {"epochs": 2}},
    "resources": {"slots_per_trial": 0},
}


def plan(
    changes: Mapping[str, object] | None = None, *, header: Header = HEADER, gpus: tuple[str, ...] = ()
) -> tuple[RunInfo, ContainerSpec]:
    config = config_from_mapping({**BASE, **(changes or {})})
    paths = container_paths(config, FOLDER)
    owner = RunOwner(home_id="abcd1234", folder=FOLDER, header=header)
    spec = plan_run(config, REQUEST, owner, paths, gpus)
    return spec.info, container_spec(spec)


def test_the_container_of_a_run_on_the_cpu() -> None:
    assert plan()[1] == ContainerSpec(
        name="detbuild-abcd1234-3-1-2",
        image="sha256:0",
        env={"DETBUILD_RUN_DIR": "/run/detbuild/run"},
        user="1000:1000",
        mounts=(
            Mount(source="/home/experiments/3/runs/1-2", target="/run/detbuild/run"),
            Mount(source="/home/experiments/3/checkpoints", target="/run/detbuild/checkpoints"),
        ),
        labels={
            "detbuild.home": "abcd1234",
            "detbuild.experiment": "3",
            "detbuild.trial": "1",
            "detbuild.run": "2",
            "detbuild.user": "1000",
            "detbuild.weight": "1",
            "detbuild.cpu": "1",
        },
    )


def test_what_the_host_gives_all_containers_reaches_them() -> None:
    info, spec = plan(header=replace(HEADER, network="host", startup_hook="date\n"))
    assert (info.startup_hook, spec.network) == ("date\n", "host")


def test_what_a_run_is_told() -> None:
    info = plan()[0]
    assert replace(info, config={}) == RunInfo(
        experiment_id=3,
        trial_id=1,
        run=2,
        trial_seed=9,
        slots=0,
        entrypoint="model_def:Trial",
        run_dir="/run/detbuild/run",
        context_dir="/run/determined/workdir",
        context_name="my-model",
        checkpoint_dir="/run/detbuild/checkpoints",
        max_length=Length("epochs", 2),
        milestones=(1,),
        hparams={"lr": 0.1},
        checkpoints=("new", "old"),
        best_validation=0.5,
    )
    assert info.config["searcher"] == {**BASE["searcher"], **info.config["searcher"]}  # type: ignore[dict-item]


@pytest.mark.parametrize("slots", [1, 8])
def test_slots_per_trial_reaches_the_gpus_and_the_harness_unchanged(slots: int) -> None:
    chosen = tuple(f"nvidia.com/gpu={number}" for number in range(slots))
    info, spec = plan({"resources": {"slots_per_trial": slots}}, gpus=chosen)
    assert (info.slots, len(info.gpu_ids), len(spec.gpus)) == (slots, slots, slots)
    assert info.gpu_ids == spec.gpus
    assert spec.gpu_driver == "cdi"
    assert spec.labels["detbuild.gpus"] == ",".join(spec.gpus)


def test_everything_that_a_user_may_ask_of_the_container() -> None:
    _, spec = plan(
        {
            "resources": {"slots_per_trial": 0, "shm_size": "1g", "devices": ["/dev/fuse:/dev/fuse:rw"]},
            "environment": {
                "environment_variables": {"cpu": ["A=1", "B=x=y z", "A=2"], "cuda": ["A=9"]},
                "ports": {"web": 8080, "other": 80, "again": 8080},
                "add_capabilities": ["NET_ADMIN"],
            },
            "bind_mounts": [
                {"host_path": "/data", "container_path": "data", "read_only": True},
                {"host_path": "/big", "container_path": "/big", "propagation": "rslave"},
            ],
            "preemption_timeout": 60,
        }
    )
    assert spec.shm_size == 1 << 30
    assert spec.devices == (Device("/dev/fuse", "/dev/fuse", "rw"),)
    assert spec.env == {"A": "2", "B": "x=y z", "DETBUILD_RUN_DIR": "/run/detbuild/run"}
    assert spec.ports == (80, 8080)
    assert (spec.cap_add, spec.cap_drop) == (("NET_ADMIN",), ("ALL",))
    assert spec.mounts[2:] == (
        Mount(source="/data", target="/run/determined/workdir/data", read_only=True),
        Mount(source="/big", target="/big", propagation="rslave"),
    )
    assert spec.stop_timeout == 60


def test_a_shared_file_system_is_mounted_where_determined_mounts_it() -> None:
    storage = {"type": "shared_fs", "host_path": "/srv/shared", "storage_path": "team/a"}
    info, spec = plan({"checkpoint_storage": storage})
    assert info.checkpoint_dir == "/determined_shared_fs/team/a"
    assert spec.mounts[1] == Mount(source="/srv/shared", target="/determined_shared_fs")


@pytest.mark.parametrize("kind", ["shared_fs", "directory"])
def test_a_checkpoint_to_start_from_in_a_shared_directory_is_read_only(tmp_path: Path, kind: str) -> None:
    (tmp_path / "5f2a").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "5f2a")
    places = {
        "shared_fs": {"host_path": str(tmp_path)},
        "directory": {"container_path": f"/c/{tmp_path.name}"},
    }
    mounts = [{"host_path": str(tmp_path.parent), "container_path": "/c"}] if kind == "directory" else []
    storage = {"checkpoint_storage": {"type": kind, **places[kind]}, "bind_mounts": mounts}
    for source, readonly in (("5f2a", True), ("linked", False), ("gone", False)):
        searcher = {"name": "single", "metric": "loss", "max_length": 2, "source_checkpoint_uuid": source}
        info, spec = plan({**storage, "searcher": searcher})
        target = f"{info.checkpoint_dir}/{source}"
        wanted = Mount(source=str(tmp_path / source), target=target, read_only=True)
        assert (wanted in spec.mounts) == readonly
        assert len(spec.mounts) == 2 + readonly


def test_a_directory_of_the_container_needs_no_mount_of_ours() -> None:
    info, spec = plan({"checkpoint_storage": {"type": "directory", "container_path": "/ckpt"}})
    assert info.checkpoint_dir == "/ckpt"
    assert len(spec.mounts) == 1


def test_the_registrys_credentials_do_not_reach_the_run() -> None:
    auth = {"username": "me", "password": "canary"}
    info, spec = plan({"environment": {"registry_auth": auth}})
    assert "canary" not in repr(info) + repr(spec)


@pytest.mark.parametrize(
    "storage",
    [
        {"type": "s3", "bucket": "lab", "access_key": "hidden-key", "secret_key": "hidden-key"},
        {"type": "azure", "container": "lab", "connection_string": "hidden-key"},
        {"type": "azure", "container": "lab", "account_url": "https://a.b", "credential": "hidden-key"},
    ],
)
def test_credentials_of_the_storage_stay_on_the_host(storage: Mapping[str, object]) -> None:
    info, spec = plan({"checkpoint_storage": storage})
    assert "hidden-key" not in repr(info) + repr(spec)
    assert info.config["checkpoint_storage"]["type"] == storage["type"]  # type: ignore[index]
