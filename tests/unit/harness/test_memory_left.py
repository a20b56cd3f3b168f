from __future__ import annotations

from pathlib import Path

import pytest

from determined._run.memory import available


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
