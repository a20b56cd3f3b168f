from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from detbuild.config.parse import config_from_mapping, trace_text
from detbuild.config.yaml import ConfigErrors
from detbuild.launch.grants import grant_warnings
from detbuild.launch.host import check_mounts

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
        assert "an engine's socket" in mounted(tmp_path, read_only=True)[0]


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
