from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detbuild.config.parse import config_from_mapping, trace_text
from detbuild.config.yaml import ConfigErrors
from detbuild.runtime.gpus import check_mounts
from detbuild.runtime.limits import (
    OF_CONFIG,
    OF_HOST,
    binary,
    cpu_limit,
    cpu_limit_text,
    grant_warnings,
    limit_warnings,
    local_warnings,
    memory_limit,
    memory_limit_text,
    memory_source,
    reserve,
    scratch,
)
from tests.fakes import INFO

GIB = 1 << 30


def config(**sections: object):
    raw = {
        "entrypoint": "m:T",
        "searcher": {"name": "single", "metric": "loss", "max_length": {"batches": 1}},
        **sections,
    }
    return config_from_mapping(raw)


@pytest.mark.parametrize(
    ("host", "kept"),
    [
        (0, 0),
        (1 * GIB, GIB // 4),
        (2 * GIB, GIB // 2),
        (4 * GIB, GIB),
        (16 * GIB, GIB),
        (32 * GIB, 2 * GIB),
        (128 * GIB, 8 * GIB),
        (2048 * GIB, 8 * GIB),
    ],
)
def test_the_reserve_of_small_and_large_hosts(host: int, kept: int) -> None:
    assert reserve(host) == kept


@given(st.integers(0, 1 << 50), st.integers(0, 1 << 50))
def test_a_larger_host_never_leaves_a_trial_less(one: int, other: int) -> None:
    small, large = sorted((one, other))
    assert 0 <= memory_limit(None, small) <= memory_limit(None, large) <= large


def test_the_config_comes_before_the_host() -> None:
    assert memory_limit(GIB, 8 * GIB) == GIB
    assert memory_limit(None, 0) == 0
    assert memory_source(GIB, 8 * GIB, GIB) == OF_CONFIG
    assert memory_source(None, 8 * GIB, 7 * GIB) == OF_HOST
    assert memory_source(None, 8 * GIB, 64) == "set on the container"


@pytest.mark.parametrize(
    ("asked", "host", "limit"), [(None, 2, 0.0), (1.5, 2, 1.5), (2.0, 2, 0.0), (8.0, 2, 0.0), (8.0, 0, 8.0)]
)
def test_no_more_cores_are_asked_for_than_there_are(asked: float | None, host: int, limit: float) -> None:
    assert cpu_limit(asked, host) == limit


def test_limits_are_told_with_their_source() -> None:
    assert memory_limit_text(3 * GIB // 2, 8 * GIB) == "1.5 GiB (resources.memory)"
    assert memory_limit_text(None, 8 * GIB) == "7 GiB, the host's memory less a reserve (no resources.memory)"
    assert memory_limit_text(None) == "the host's memory less a reserve (no resources.memory)"
    assert cpu_limit_text(None, 2) == "no limit (no resources.cpus)"
    assert cpu_limit_text(1.5, 2) == "1.5 (resources.cpus)"
    assert cpu_limit_text(4.0, 2) == "all 2 of the host's (resources.cpus)"


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (64 << 20, "64 MiB"), (GIB * 5 // 2, "2.5 GiB")],
)
def test_sizes_are_in_the_units_of_limits(count: int, said: str) -> None:
    assert binary(count) == said


def test_limits_beyond_the_host_are_warned_of() -> None:
    asks = config(resources={"memory": "64g", "cpus": 8})
    info = replace(INFO, memory=16 * GIB, cpus=1)
    assert [warning.message for warning in limit_warnings(asks, info)] == [
        "resources.memory is 64 GiB, but the engine's host has 16 GiB",
        "resources.cpus is 8, but the engine's host has 1 core: trials use all of them",
    ]
    assert not list(limit_warnings(config(resources={"memory": "2g", "cpus": 1}), info))
    assert not list(limit_warnings(asks, replace(INFO, memory=0, cpus=0)))


def test_a_local_run_says_which_limits_it_has_not() -> None:
    asks = config(resources={"memory": "1g", "cpus": 1}, environment={"read_only_root": True})
    (warning,) = local_warnings(asks)
    assert warning.message.endswith(": resources.memory, resources.cpus, environment.read_only_root")
    assert not list(local_warnings(config()))


def test_what_is_writable_below_a_read_only_root() -> None:
    assert scratch(config()) == ()
    read_only = {"read_only_root": True}
    assert scratch(config(environment=read_only)) == ("/run/determined/workdir", "/tmp", "/var/tmp")
    mounted = [{"host_path": "/data", "container_path": path} for path in ("/tmp/", "data")]
    assert scratch(config(environment=read_only, bind_mounts=mounted)) == (
        "/run/determined/workdir",
        "/var/tmp",
    )


HOME, USER_HOME = Path("/srv/detbuild"), Path("/srv/people/anna")
MINIMAL = """\
entrypoint: m:T
searcher: {name: single, metric: loss, max_length: {batches: 1}}
"""


def warnings(**sections: object) -> list[str]:
    raw = {
        "entrypoint": "m:T",
        "searcher": {"name": "single", "metric": "loss", "max_length": {"batches": 1}},
        **sections,
    }
    return [warning.message for warning in grant_warnings(config_from_mapping(raw), HOME, USER_HOME)]


@pytest.mark.parametrize(
    "name",
    [
        "SYS_ADMIN",
        "CAP_SYS_ADMIN",
        "sys_admin",
        "cap_Sys_Admin",
        "ALL",
        "all",
        "SYS_PTRACE",
        "DAC_READ_SEARCH",
    ],
)
def test_a_dangerous_capability_is_named_in_any_spelling(name: str) -> None:
    (message,) = warnings(environment={"add_capabilities": [name]})
    assert message.startswith(f"environment.add_capabilities: {name} gives the trial ")


def test_each_capability_is_told_by_itself_and_harmless_ones_are_not() -> None:
    assert len(warnings(environment={"add_capabilities": ["SYS_ADMIN", "IPC_LOCK", "NET_ADMIN"]})) == 2
    assert warnings(environment={"add_capabilities": ["SYS_NICE", "CAP_CHOWN"]}) == []
    assert warnings(environment={"drop_capabilities": ["SYS_ADMIN", "ALL"]}) == []


@pytest.mark.parametrize("field", ["add_capabilities", "drop_capabilities"])
def test_a_capability_that_no_engine_knows_is_named_with_the_nearest(field: str) -> None:
    (warning,) = grant_warnings(
        config_from_mapping(
            {
                "entrypoint": "m:T",
                "searcher": {"name": "single", "metric": "loss", "max_length": {"batches": 1}},
                "environment": {field: ["SYS_ADMN"]},
            }
        ),
        HOME,
        USER_HOME,
    )
    assert warning.message == f"environment.{field}: SYS_ADMN is not a known capability"
    assert warning.hint == "write `SYS_ADMIN`, or remove it"


def mounted(path: str | Path, **more: object) -> list[str]:
    return warnings(bind_mounts=[{"host_path": str(path), "container_path": "/m", **more}])


@pytest.mark.parametrize(
    ("path", "given"),
    [
        ("/root", "a home directory"),
        ("/home", "a home directory"),
        ("/home/anna", "a home directory"),
        ("/home/anna/", "a home directory"),
        ("/srv/people/anna", "a home directory"),
        ("/srv/people/anna/.ssh", "keys and passwords"),
        ("/srv/people/anna/.docker/x", "keys and passwords"),
        ("/usr", "programs of the host"),
        ("/usr/local/bin", "programs of the host"),
        ("/opt", "programs of the host"),
        ("/srv", "experiments of detbuild"),
        ("/srv/detbuild", "experiments of detbuild"),
        ("/srv/detbuild/experiments/1", "experiments of detbuild"),
    ],
)
def test_a_mount_that_gives_away_more_than_data_is_told(path: str, given: str) -> None:
    (message,) = mounted(path)
    assert message.startswith(f"bind_mounts[0].host_path: {path} gives the trial {given}")


@pytest.mark.parametrize("path", ["/data", "/srv/data", "/mnt/nfs/x", "/home/anna/data", "/srv/people"])
def test_a_mount_of_data_is_not(path: str) -> None:
    assert mounted(path) == []


def test_a_read_only_mount_gives_less_away() -> None:
    assert mounted("/usr", read_only=True) == []
    (message,) = mounted("/root", read_only=True)
    assert message.endswith("for reading")


def test_a_link_is_judged_by_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "innocent").symlink_to("/root")
    assert "a home directory" in mounted(tmp_path / "innocent")[0]


def test_a_directory_with_an_engines_socket_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "docker.sock"))
        assert "a container engine's socket" in mounted(tmp_path, read_only=True)[0]


def test_mounts_that_spread_to_the_host_are_told() -> None:
    assert "shows mounts of the trial on the host" in mounted("/data", propagation="rshared")[0]


@pytest.mark.parametrize(
    ("path", "raw"),
    [
        *(
            (path, True)
            for path in ("/dev/sda", "/dev/nvme0n1p1", "/dev/mem", "/dev/mapper/root", "/dev//sda1")
        ),
        *((path, True) for path in ("/dev", "/dev/", "/dev/disk/by-id/x", "/dev/loop0")),
        *((path, False) for path in ("/dev/fuse", "/dev/infiniband", "/dev/nvidia0", "/dev/kfd", "/dev/dri")),
    ],
)
def test_raw_devices_of_the_host_are_told(path: str, raw: bool) -> None:
    assert bool(warnings(resources={"devices": [f"{path}:/dev/x"]})) is raw


# what is refused


def refused(text: str) -> list[str]:
    traced = trace_text(MINIMAL + text, source="c.yaml")
    with pytest.raises(ConfigErrors) as caught:
        check_mounts(traced.config, traced.place)
    return list(caught.value.lines)


def test_all_missing_sources_are_told_at_once_with_their_places(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    paths = ["/no/such", tmp_path / "dangling", tmp_path / "loop", tmp_path / "file" / "x", tmp_path]
    lines = "".join(f"  - {{host_path: {path}, container_path: /m{n}}}\n" for n, path in enumerate(paths))
    found = refused(f"bind_mounts:\n{lines}")
    assert [line.partition(": ")[0] for line in found] == [f"c.yaml:{n}:17" for n in (4, 5, 6, 7)]
    assert found[0] == (
        "c.yaml:4:17: bind_mounts[0].host_path: /no/such does not exist; create it, or mount another"
    )


def test_a_link_into_the_host_is_refused_without_an_engine(tmp_path: Path) -> None:
    for number, target in enumerate(("/etc", "/", "/proc", "/var/run", "/run")):
        link = tmp_path / str(number)
        link.symlink_to(target)
        (line,) = refused(f"bind_mounts: [{{host_path: {link}, container_path: /m}}]")
        assert "is a system directory of the host" in line


@pytest.mark.skipif(os.getuid() == 0, reason="root sees everything")
def test_what_this_user_may_not_see_is_left_to_the_engine() -> None:
    traced = trace_text(MINIMAL + "bind_mounts: [{host_path: /root/x, container_path: /m}]", source="c.yaml")
    check_mounts(traced.config, traced.place)
