"""DockerEngine in front of an engine that is away, hangs, or answers in unexpected ways."""

from __future__ import annotations

import socket

import pytest

from detbuild.engine.docker import (
    DockerEngine,
    create_body,
    demultiplexed,
    engine_info,
    image_state,
    listed_state,
    state_of,
)
from detbuild.engine.protocol import ContainerSpec, ContainerState, Device, EngineInfo, ImageState, Mount
from detbuild.errors import EngineError
from detbuild.events import ImagePulling


def test_an_engine_that_is_away_is_missed_at_the_first_call_only() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    engine = DockerEngine(f"tcp://127.0.0.1:{port}")
    for _ in range(2):
        with pytest.raises(
            EngineError, match=f"cannot reach Docker Engine at tcp://127.0.0.1:{port}"
        ) as caught:
            engine.image_id("x")
        assert "DOCKER_HOST" in caught.value.hint


def test_a_socket_that_is_not_there_is_an_engine_that_is_away(tmp_path) -> None:
    with pytest.raises(EngineError, match="cannot reach Docker Engine at unix://"):
        DockerEngine(f"unix://{tmp_path}/docker.sock").info()


def test_an_engine_that_comes_back_is_used(daemon, engine) -> None:
    ready = dict(daemon.answers)
    daemon.answers.update(dict.fromkeys(ready, (500, {"message": "starting"})))
    with pytest.raises(EngineError):
        engine.image_id("x")
    daemon.answers.update(ready)
    daemon.answers["GET /images/x/json"] = (200, {"Id": "sha256:1"})
    assert engine.image_id("x") == "sha256:1"


@pytest.mark.parametrize("paths", [("GET /version", "GET /_ping"), ("GET /images/x/json",)])
def test_a_hung_engine_is_given_up_in_time(daemon, engine, paths) -> None:
    daemon.answers.update(dict.fromkeys(paths, (200, "hang")))
    with pytest.raises(EngineError, match="did not answer in time"):
        engine.image_id("x")


def test_a_hung_wait_is_not_taken_for_a_running_container(daemon, engine) -> None:
    state = {"Status": "running", "ExitCode": 0}
    daemon.answers["GET /containers/c/json"] = (200, {"Id": "1", "Name": "/c", "State": state, "Config": {}})
    daemon.answers["POST /containers/c/wait"] = (200, "hang")
    assert engine.wait("c", timeout=0.05) is None
    daemon.answers["GET /containers/c/json"] = (200, "hang")
    with pytest.raises(EngineError, match="did not answer in time"):
        engine.wait("c", timeout=0.05)


def test_what_is_no_json_is_an_engine_error(daemon, engine) -> None:
    del daemon.answers["GET /info"]
    daemon.answers["POST /images/create"] = (200, "x")
    daemon.answers["GET /images/x:latest/json"] = (200, {"Id": "sha256:1"})
    with pytest.raises(EngineError):
        engine.info()


def test_a_pull_tells_its_progress_and_gives_the_id(daemon, engine) -> None:
    daemon.answers["POST /images/create"] = (
        200,
        [
            {"status": "Pulling from x", "id": "1"},
            {"status": "Downloading", "progress": "[=>] 1/2", "id": "ab"},
        ],
    )
    daemon.answers["GET /images/host:1/x:2/json"] = (200, {"Id": "sha256:1"})
    events = []
    assert engine.pull("host:1/x:2", events.append) == "sha256:1"
    assert events == [
        ImagePulling("host:1/x:2", "1 Pulling from x"),
        ImagePulling("host:1/x:2", "ab Downloading [=>] 1/2"),
    ]


@pytest.mark.parametrize(
    ("own", "sent"),
    [
        ({"username": "me", "password": "p"}, {"username": "me", "password": "p"}),
        (
            {"username": "me", "password": "p", "serveraddress": "https://host:1/v2/"},
            {"username": "me", "password": "p", "serveraddress": "https://host:1/v2/"},
        ),
        ({"auth": "bWU6cDpx"}, {"auth": "bWU6cDpx", "username": "me", "password": "p:q"}),
        ({"username": "me", "password": "p", "serveraddress": "other:1"}, None),
        ({}, None),
    ],
)
def test_a_pull_sends_credentials_to_the_registry_that_they_are_for(daemon, engine, own, sent) -> None:
    daemon.answers["POST /images/create"] = (200, [])
    daemon.answers["GET /images/host:1/x:2/json"] = (200, {"Id": "sha256:1"})
    engine.pull("host:1/x:2", lambda _: None, credentials=own)
    assert daemon.credentials == sent


def test_a_pull_that_fails_half_way_is_an_error(daemon, engine) -> None:
    daemon.answers["POST /images/create"] = (200, [{"status": "x"}, {"error": "manifest for x:1 not found"}])
    with pytest.raises(EngineError, match="image not found in the registry: x:1"):
        engine.pull("x:1", lambda _: None)


def test_a_name_in_use_is_ours_only_with_our_labels(daemon, engine) -> None:
    from detbuild.engine.protocol import ContainerSpec

    daemon.answers["POST /containers/create"] = (409, {"message": "Conflict. The container name is in use"})
    there = {"Id": "1", "Name": "/c", "State": {"Status": "created", "ExitCode": 0}}
    daemon.answers["GET /containers/c/json"] = (
        200,
        there | {"Config": {"Labels": {"a": "b", "of": "image"}}},
    )
    assert engine.create(ContainerSpec(name="c", image="i", labels={"a": "b"})) == "1"
    with pytest.raises(EngineError, match="in use by another container"):
        engine.create(ContainerSpec(name="c", image="i", labels={"a": "c"}))


def test_every_setting_of_a_spec_reaches_the_engine() -> None:
    spec = ContainerSpec(
        name="detbuild-1",
        image="sha256:0",
        command=("train", "a b"),
        entrypoint=("python3",),
        stdin=True,
        terminal=True,
        env={"A": "b=c", "E": ""},
        user="1:2",
        gpus=("0", "GPU-1"),
        shm_size=5,
        mounts=(Mount(source="/a:b", target="/c", read_only=True, propagation="rslave"),),
        devices=(Device("/dev/a", "/dev/b", "r"),),
        cap_add=("SYS_NICE",),
        ports=(80,),
        network="none",
        pids_limit=6,
        memory=9 << 20,
        cpus=1.25,
        read_only_root=True,
        scratch=("/w",),
        tmpfs=("/tmp:size=1m,mode=1777", "/t"),
        stop_timeout=7,
        labels={"l": "m"},
    )
    assert create_body(spec) == {
        "Image": "sha256:0",
        "Cmd": ["train", "a b"],
        "Entrypoint": ["python3"],
        "OpenStdin": True,
        "StdinOnce": True,
        "Tty": True,
        "Env": ["A=b=c", "E="],
        "User": "1:2",
        "Labels": {"l": "m"},
        "StopTimeout": 7,
        "ExposedPorts": {"80/tcp": {}},
        "HostConfig": {
            "ShmSize": 5,
            "Mounts": [
                {"Type": "volume", "Target": "/w"},
                {
                    "Type": "bind",
                    "Source": "/a:b",
                    "Target": "/c",
                    "ReadOnly": True,
                    "BindOptions": {"Propagation": "rslave"},
                },
            ],
            "Devices": [{"PathOnHost": "/dev/a", "PathInContainer": "/dev/b", "CgroupPermissions": "r"}],
            "DeviceRequests": [
                {
                    "Driver": "nvidia",
                    "DeviceIDs": ["0", "GPU-1"],
                    "Capabilities": [["gpu", "compute", "utility"]],
                }
            ],
            "CapAdd": ["SYS_NICE"],
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "PidsLimit": 6,
            "Memory": 9 << 20,
            "MemorySwap": 9 << 20,
            "NanoCpus": 1_250_000_000,
            "CpuShares": 512,
            "OomScoreAdj": 500,
            "ReadonlyRootfs": True,
            "NetworkMode": "none",
            "PortBindings": {"80/tcp": [{"HostPort": ""}]},
            "Tmpfs": {"/tmp": "size=1m,mode=1777", "/t": ""},
            "Init": False,
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "2"}},
        },
    }


def test_cdi_devices_are_asked_for_by_their_full_names() -> None:
    spec = ContainerSpec(name="c", image="i", gpus=("nvidia.com/gpu=0",), gpu_driver="cdi")
    assert create_body(spec)["HostConfig"]["DeviceRequests"] == [
        {"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=0"], "Capabilities": []}
    ]


def test_without_gpus_and_command_nothing_is_asked_for() -> None:
    body = create_body(ContainerSpec(name="c", image="i"))
    assert (body["Cmd"], body["HostConfig"]["DeviceRequests"]) == (None, [])


def test_the_engines_answer_is_a_state() -> None:
    state = {"Status": "exited", "ExitCode": 137, "OOMKilled": True, "Error": "words"}
    answer = {"Id": "1", "Name": "/detbuild-1", "State": state, "Config": {"Labels": {"a": "b"}}}
    assert state_of(answer) == ContainerState(
        id="1",
        name="detbuild-1",
        status="exited",
        exit_code=137,
        oom_killed=True,
        error="words",
        labels={"a": "b"},
    )


def test_an_answer_without_labels_has_none() -> None:
    answer = {
        "Id": "1",
        "Name": "/c",
        "State": {"Status": "created", "ExitCode": 0},
        "Config": {"Labels": None},
    }
    assert state_of(answer) == ContainerState(id="1", name="c", status="created")


def test_an_element_of_the_list_is_a_state() -> None:
    listed = {"Id": "1", "Names": ["/detbuild-1"], "State": "running", "Labels": {"a": "b"}, "Status": "Up"}
    assert listed_state(listed) == ContainerState(
        id="1", name="detbuild-1", status="running", labels={"a": "b"}
    )


def test_both_streams_of_output_are_joined_as_they_came() -> None:
    pieces = b"\x01\0\0\0\0\0\0\x03on\n" + b"\x02\0\0\0\0\0\0\x04two\n"
    assert demultiplexed(pieces) == b"on\ntwo\n"
    assert demultiplexed(pieces[:-2]) == b"on\ntw"
    assert demultiplexed(b"") == b""


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
