from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING

import pytest

from detbuild.engine.protocol import ContainerState
from detbuild.runtime.gpus import (
    Gpu,
    discover,
    driver_of,
    free,
    held,
    shortage_error,
    unknown_ids,
    usable,
    won,
)
from detbuild.runtime.labels import GPU_LABEL
from tests.fakes import INFO, gpus

if TYPE_CHECKING:
    from collections.abc import Iterator

LISTED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaa)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-bbbb)
  MIG 3g.20gb     Device  0: (UUID: MIG-1111)
  MIG 3g.20gb     Device  1: (UUID: MIG-2222)
GPU 2: NVIDIA (R) Odd Name (UUID: GPU-cccc)
"""


def test_nvidia_smi_lists_gpus_and_the_parts_of_divided_ones() -> None:
    found = [gpu.id for gpu in discover(INFO, LISTED)]
    assert found == ["GPU-aaaa", "MIG-1111", "MIG-2222", "GPU-cccc"]
    assert {driver_of(gpu.id) for gpu in discover(INFO, LISTED)} == {"nvidia"}


@pytest.mark.parametrize(
    "text", ["", "No devices found.\n", "Failed to initialize NVML: Driver/library version mismatch"]
)
def test_no_gpu_is_found_where_nvidia_smi_lists_none(text: str) -> None:
    assert discover(INFO, text) == ()


def test_cdi_devices_come_first_and_each_device_counts_once() -> None:
    info = gpus("1", "0", "10", "all", "GPU-aaaa")
    expected = ["nvidia.com/gpu=0", "nvidia.com/gpu=1", "nvidia.com/gpu=10"]
    assert discover(info, LISTED) == tuple(Gpu(name) for name in expected)


def test_cdi_devices_with_names_alone_are_taken_as_they_are() -> None:
    assert [gpu.id for gpu in discover(gpus("GPU-b", "GPU-a", "all"), "")] == [
        "nvidia.com/gpu=GPU-a",
        "nvidia.com/gpu=GPU-b",
    ]


def container(status: str, label: str) -> ContainerState:
    return ContainerState(id=status, name=status, status=status, labels={"detbuild.gpus": label})  # type: ignore[arg-type]


def test_a_gpu_is_held_from_the_creation_of_its_container_to_its_end() -> None:
    containers = [
        container("created", "0"),
        container("running", "1,2"),
        container("exited", "3"),
        container("dead", "4"),
        container("removing", "5"),
    ]
    assert held(containers) == {"0", "1", "2"}


def test_what_nobody_holds_is_free() -> None:
    three = tuple(Gpu(name) for name in "abc")
    assert free(three, frozenset("a")) == three[1:]
    assert free(three, frozenset("abc")) == ()


def test_a_held_gpu_of_another_name_may_be_any_of_those_that_are_there() -> None:
    two = (Gpu("nvidia.com/gpu=0"), Gpu("nvidia.com/gpu=1"))
    assert free(two, frozenset({"GPU-5c9e"})) == ()
    assert unknown_ids(two, frozenset({"GPU-5c9e", "nvidia.com/gpu=0"})) == ["GPU-5c9e"]


@pytest.mark.parametrize(
    ("only", "usable_ones"),
    [
        (["0"], ["GPU-aaaa"]),
        (["GPU-cccc"], ["GPU-cccc"]),
        (["MIG-2222"], ["MIG-2222"]),
        (["1:0"], ["MIG-1111"]),
        (["1"], ["MIG-1111", "MIG-2222"]),
        (["GPU-bbbb", "2"], ["MIG-1111", "MIG-2222", "GPU-cccc"]),
        (["7"], []),
        ([], []),
    ],
)
def test_gpus_are_named_by_number_or_uuid_and_a_divided_one_stands_for_its_parts(only, usable_ones) -> None:
    assert [gpu.id for gpu in usable(discover(INFO, LISTED, only))] == usable_ones


@pytest.mark.parametrize("name", ["nvidia.com/gpu=1:0", "1:0", "MIG-1111", "GPU-bbbb", "1"])
def test_a_cdi_device_answers_to_its_own_name_and_to_those_of_nvidia_smi(name: str) -> None:
    found = discover(gpus("0", "1:0", "1:1", "2"), LISTED, [name])
    assert usable(found)[0].id == "nvidia.com/gpu=1:0"


def test_a_cdi_device_named_by_its_uuid_answers_to_its_number() -> None:
    found = discover(gpus("GPU-aaaa", "GPU-cccc"), LISTED, ["2"])
    assert [gpu.id for gpu in usable(found)] == ["nvidia.com/gpu=GPU-cccc"]


def test_a_gpu_that_detbuild_may_not_use_is_never_free_and_no_strange_one() -> None:
    two = discover(gpus("0", "1"), "", ["1"])
    assert [gpu.id for gpu in free(two, frozenset())] == ["nvidia.com/gpu=1"]
    assert [gpu.id for gpu in free(two, frozenset({"nvidia.com/gpu=0"}))] == ["nvidia.com/gpu=1"]
    error = shortage_error(two, 2)
    assert (
        str(error)
        == "resources.slots_per_trial requests 2 GPUs, but detbuild may use 1 of the 2 on this host"
    )


@pytest.mark.parametrize(
    ("names", "slots", "cause"),
    [
        ("", 1, "resources.slots_per_trial requests 1 GPU, but no GPU was found on this host"),
        ("a", 2, "resources.slots_per_trial requests 2 GPUs, but this host has only 1"),
    ],
)
def test_a_host_that_never_has_enough_gpus_is_said_with_a_way_out(names: str, slots: int, cause: str) -> None:
    error = shortage_error(tuple(Gpu(name) for name in names), slots)
    assert str(error) == cause
    assert error is not None
    assert "slots_per_trial: 0" in error.hint
    assert shortage_error((Gpu("a"),), 1) is None


def contender(name: str, gpus: str, status: str = "created") -> ContainerState:
    return ContainerState(id=name, name=name, status=status, labels={GPU_LABEL: gpus})


class Engine:
    """What it says of containers, look by look."""

    def __init__(self, *looks: list[ContainerState]) -> None:
        self.looks = list(looks)

    def find(self, _labels: object) -> list[ContainerState]:
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]


MINE = contender("b", "0,1")


@pytest.mark.parametrize(
    ("looks", "result"),
    [
        ([[MINE]], True),
        ([[MINE, contender("a", "2")]], True),
        ([[MINE, contender("a", "1", "exited")]], True),
        ([[MINE, contender("a", "1")]], False),
        ([[MINE, contender("c", "1", "running")]], False),
        ([[MINE, contender("c", "1", "paused")]], False),
        ([[MINE, contender("c", "1")]], False),
        ([[MINE, contender("c", "1")], [MINE]], True),
        ([[MINE, contender("c", "1")], [MINE, contender("c", "1", "running")]], False),
    ],
)
def test_a_container_is_started_only_when_no_other_has_its_gpus(
    looks: list[list[ContainerState]], result: bool
) -> None:
    assert won(Engine(*looks), "b", ("0", "1"), lambda _: None) is result


def test_a_container_without_gpus_asks_for_none() -> None:
    assert won(Engine(), "b", (), lambda _: None)


@pytest.mark.parametrize("order", set(permutations("aabbb")))
def test_of_two_containers_created_at_once_one_wins_at_most_and_one_at_least(order: tuple[str, ...]) -> None:
    """Every order of the steps create, look and start of two controllers without any lock between them."""
    host: dict[str, ContainerState] = {}
    engine = Engine([])
    engine.find = lambda _labels: list(host.values())  # type: ignore[method-assign]

    def controller(name: str) -> Iterator[None]:
        host[name] = contender(name, "0")
        yield
        if won(engine, name, ("0",), lambda _: next(going["b"], None)):
            yield
            host[name] = contender(name, "0", "running")
        else:
            del host[name]

    going = {name: controller(name) for name in "ab"}
    for name in (*order, *"ababab"):
        next(going[name], None)
    assert [each.status for each in host.values()] == ["running"]
