from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from detbuild.engine.protocol import ContainerState
from detbuild.errors import EngineError
from detbuild.launch.gpus import Gpu, choose, discover, exclusive, free, held, lacking
from tests.fakes import INFO, gpus

if TYPE_CHECKING:
    from pathlib import Path

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
    assert {gpu.driver for gpu in discover(INFO, LISTED)} == {"nvidia"}


@pytest.mark.parametrize(
    "text", ["", "No devices found.\n", "Failed to initialize NVML: Driver/library version mismatch"]
)
def test_no_gpu_is_found_where_nvidia_smi_lists_none(text: str) -> None:
    assert discover(INFO, text) == ()


def test_cdi_devices_come_first_and_each_device_counts_once() -> None:
    info = gpus("1", "0", "10", "all", "GPU-aaaa")
    expected = ["nvidia.com/gpu=0", "nvidia.com/gpu=1", "nvidia.com/gpu=10"]
    assert discover(info, LISTED) == tuple(Gpu(name, "cdi") for name in expected)


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
    ]
    assert held(containers) == {"0", "1", "2"}


def test_the_first_free_gpus_are_chosen() -> None:
    three = tuple(Gpu(name, "cdi") for name in "abc")
    assert choose(three, frozenset("a"), 2) == (Gpu("b", "cdi"), Gpu("c", "cdi"))
    assert choose(three, frozenset("ab"), 2) is None


def test_a_held_gpu_of_another_name_may_be_any_of_those_that_are_there() -> None:
    two = (Gpu("nvidia.com/gpu=0", "cdi"), Gpu("nvidia.com/gpu=1", "cdi"))
    assert choose(two, frozenset({"GPU-5c9e"}), 1) is None
    assert free(two, frozenset({"GPU-5c9e"})) == "a container holds GPU-5c9e, which has another name by now"
    assert free(two, frozenset({"nvidia.com/gpu=1"})) == "1 of 2 on this host are free"


@pytest.mark.parametrize(
    ("names", "slots", "cause"),
    [
        ("", 1, "resources.slots_per_trial asks for 1 GPU, and no GPU was found on this host"),
        ("a", 2, "resources.slots_per_trial asks for 2 GPUs, and only 1 of them on this host"),
    ],
)
def test_a_host_that_never_has_enough_gpus_is_said_with_a_way_out(names: str, slots: int, cause: str) -> None:
    error = lacking(tuple(Gpu(name, "cdi") for name in names), slots)
    assert str(error) == cause
    assert error is not None
    assert "slots_per_trial: 0" in error.mend
    assert lacking((Gpu("a", "cdi"),), 1) is None


def test_only_one_process_chooses_at_a_time(tmp_path: Path) -> None:
    file = tmp_path / "gpus.lock"
    code = f"""
from pathlib import Path
from detbuild.errors import EngineError
from detbuild.launch.gpus import exclusive
try:
    with exclusive(Path({str(file)!r}), timeout=0.1): print("got it")
except EngineError as error: print(error)
"""
    with exclusive(file):
        inside = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert inside.stdout.startswith("another process has held")
    assert after.stdout == "got it\n"
    assert file.stat().st_mode & 0o777 == 0o666


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (tmp_path / "gpus.lock").symlink_to(victim)
    with pytest.raises(EngineError, match="cannot open"), exclusive(tmp_path / "gpus.lock"):
        pass
    assert not victim.exists()
