from __future__ import annotations

from pathlib import Path

import pytest

from determined._run.memory import available, oom_kills

V2 = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n"
V1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"


@pytest.mark.parametrize(
    ("membership", "file", "text", "kills"),
    [
        ("0::/\n", "memory.events", V2, 2),
        ("0::/user.slice/run\n", "user.slice/run/memory.events", V2, 2),
        ("5:devices:/x\n4:memory:/docker/abc\n0::/\n", "memory/docker/abc/memory.oom_control", V1, 5),
        ("4:cpu,memory:/docker/abc\n0::/\n", "memory/memory.oom_control", V1, 5),
        ("4:memory:/docker/abc\n", "elsewhere", V1, 0),
    ],
)
def test_the_kernel_s_counter(tmp_path: Path, membership: str, file: str, text: str, kills: int) -> None:
    (tmp_path / "membership").write_text(membership)
    (tmp_path / "cgroup" / file).parent.mkdir(parents=True)
    (tmp_path / "cgroup" / file).write_text(text)
    assert oom_kills(tmp_path / "cgroup", tmp_path / "membership") == kills


def test_a_kernel_without_control_groups_has_killed_nobody(tmp_path: Path) -> None:
    assert oom_kills(tmp_path, tmp_path / "membership") == 0


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({}, 8 << 20),
        ({"memory.max": "max", "memory.current": "5"}, 8 << 20),
        ({"memory.max": "4000000", "memory.current": "1000000"}, 3_000_000),
        ({"memory/memory.limit_in_bytes": "3000", "memory/memory.usage_in_bytes": "1000"}, 2000),
    ],
)
def test_the_least_of_host_and_container_counts(tmp_path: Path, files: dict[str, str], left: int) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 99999 kB\nMemAvailable:    8192 kB\n")
    for name, text in files.items():
        (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / name).write_text(f"{text}\n")
    assert available(meminfo, tmp_path / "cgroup") == left


def test_where_nothing_can_be_learnt_there_is_none(tmp_path: Path) -> None:
    assert available(tmp_path / "meminfo", tmp_path) == 0
