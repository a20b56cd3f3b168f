from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detbuild.config.parse import config_from_mapping
from detbuild.launch.limits import (
    OF_CONFIG,
    OF_HOST,
    binary,
    cpu_limit,
    cpu_limit_text,
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
