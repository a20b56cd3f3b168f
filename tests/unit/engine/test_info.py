from __future__ import annotations

from detbuild.engine.info import engine_info, image_state
from detbuild.engine.protocol import EngineInfo, ImageState


def test_what_the_engine_tells_of_itself() -> None:
    raw = {
        "ID": "0b-1c",
        "Name": "trainer",
        "ServerVersion": "28.5.2",
        "Driver": "overlay2",
        "DockerRootDir": "/var/lib/docker",
        "NCPU": 2,
        "MemTotal": 1 << 30,
        "Architecture": "x86_64",
        "SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless"],
        "LiveRestoreEnabled": True,
        "LoggingDriver": "local",
        "CgroupVersion": "2",
        "Runtimes": {"runc": {}, "nvidia": {}},
        "DiscoveredDevices": [
            {"Source": "cdi", "ID": "nvidia.com/gpu=0"},
            {"Source": "other", "ID": "x"},
        ],
    }
    assert engine_info(raw, api_version="1.51") == EngineInfo(
        id="0b-1c",
        name="trainer",
        version="28.5.2",
        api_version="1.51",
        storage_driver="overlay2",
        data_root="/var/lib/docker",
        cpus=2,
        memory=1 << 30,
        architecture="x86_64",
        rootless=True,
        live_restore=True,
        log_driver="local",
        cgroup_version="2",
        runtimes=("nvidia", "runc"),
        cdi_devices=("nvidia.com/gpu=0",),
    )


def test_what_an_older_engine_leaves_out_is_empty() -> None:
    info = engine_info({"SecurityOptions": None, "Runtimes": None}, api_version="1.40")
    assert (info.runtimes, info.cdi_devices, info.rootless, info.cpus) == ((), (), False, 0)


def test_the_id_that_podman_invents_for_each_answer_is_not_taken_for_one() -> None:
    assert engine_info({"ID": "5c9e", "BuildahVersion": "1.38.0"}, api_version="1.41").id == ""


def test_what_an_image_is_said_to_be() -> None:
    raw = {
        "Id": "sha256:aa",
        "RepoTags": None,
        "Created": 5,
        "Size": 10,
        "SharedSize": 4,
        "Containers": 2,
        "Labels": None,
    }
    assert image_state(raw) == ImageState(id="sha256:aa", tags=(), created=5.0, size=6, containers=2)
    assert image_state({**raw, "SharedSize": -1, "Containers": -1}).size == 10
