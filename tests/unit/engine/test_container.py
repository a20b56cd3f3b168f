from __future__ import annotations

from detbuild.engine.container import create_body, demultiplexed, listed_state, state_of
from detbuild.engine.protocol import ContainerSpec, ContainerState, Device, Mount


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
