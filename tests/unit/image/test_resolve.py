from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pip._vendor.packaging.markers import Marker as PipMarker
from pip._vendor.packaging.specifiers import SpecifierSet as PipSpecifiers

from detbuild.context.snapshot import file_snapshot
from detbuild.errors import ConfigError, EngineError
from detbuild.image.needs import ContextNeeds
from detbuild.image.requirements import Requirements, read_requirements
from detbuild.image.resolve import (
    Resolution,
    Target,
    bootstrap,
    bootstrap_tag,
    can_bootstrap,
    check_python,
    check_reference,
    choose_base,
    resolve,
)
from detbuild.image.table import load_table
from detbuild.resources import images_dir

if TYPE_CHECKING:
    from pathlib import Path


TABLE = load_table(images_dir())
TORCH = [row.version for row in TABLE.frameworks["torch"].releases]
TENSORFLOW = [row.version for row in TABLE.frameworks["tensorflow"].releases]


def decide(
    *frameworks: str,
    requirements: str = "",
    gpu: bool = False,
    driver: str | None = None,
    python: str = "3.11",
    machine: str = "x86_64",
) -> Resolution:
    needs = ContextNeeds(frameworks=frozenset(frameworks), requirements=required(requirements))
    return resolve(needs, table=TABLE, target=Target(gpu=gpu, python=python, machine=machine, driver=driver))


def required(text: str, **included: bytes) -> Requirements:
    return read_requirements(file_snapshot({"requirements.txt": text.encode(), **included}))


def test_a_torch_context_on_a_cpu_host() -> None:
    assert decide("torch") == Resolution(
        bases=(
            "python:3.11-slim-bookworm",
            "python:3.10-slim-bookworm",
            "python:3.12-slim-bookworm",
            "python:3.13-slim-bookworm",
            "python:3.14-slim-bookworm",
            "detbuild-base:cpu-debian12-py3.11",
            "detbuild-base:cpu-debian13-py3.13",
        ),
        reason="torch 2.13.0 (default) for CPU, since slots_per_trial is 0; Python 3.11, as on this host",
        frameworks=("torch==2.13.0",),
        companions=("numpy",),
        builds=("torch 2.13.0 for CPU",),
        special_builds=("torch 2.13.0 for CPU",),
    )


def test_a_torch_context_on_a_gpu_host() -> None:
    resolution = decide("torch", gpu=True, driver="580.65.06")
    assert resolution.bases[0] == "nvidia/cuda:13.0.3-base-ubuntu24.04"
    assert resolution.frameworks == ("torch==2.13.0",)
    assert (resolution.cuda, resolution.min_driver, resolution.special_builds) == ("13.0", "580", ())


def test_a_keras_context_on_a_cpu_host() -> None:
    assert decide("tensorflow") == Resolution(
        bases=(
            "python:3.11-slim-bookworm",
            "python:3.10-slim-bookworm",
            "python:3.12-slim-bookworm",
            "python:3.13-slim-bookworm",
            "detbuild-base:cpu-debian12-py3.11",
            "detbuild-base:cpu-debian13-py3.13",
        ),
        reason="tensorflow-cpu 2.21.0 (default) for CPU, since slots_per_trial is 0; "
        "Python 3.11, as on this host",
        frameworks=("tensorflow-cpu==2.21.0",),
        builds=("tensorflow-cpu 2.21.0 for CPU",),
    )


@pytest.mark.parametrize(
    ("requirement", "project"),
    [("tensorflow==2.15.1", "tensorflow"), ("tensorflow-cpu~=2.15.0", "tensorflow-cpu")],
)
def test_keras_2_comes_with_the_tensorflow_that_is_asked_for(requirement: str, project: str) -> None:
    resolution = decide("tensorflow", requirements=requirement, python="3.13")
    assert resolution.frameworks == (f"{project}==2.15.1",)
    assert resolution.bases[0] == "python:3.11-slim-bookworm"  # it has no wheels for a newer Python


@pytest.mark.parametrize("version", TORCH)
def test_the_cuda_base_is_that_of_the_wheel(version: str) -> None:
    resolution = decide("torch", requirements=f"torch=={version}", gpu=True)
    row = TABLE.frameworks["torch"].nearest(version)
    assert resolution.bases[0].startswith(f"nvidia/cuda:{resolution.cuda}.")
    assert row.cuda.startswith(resolution.cuda)


def test_an_older_driver_gets_the_build_that_it_runs() -> None:
    resolution = decide("torch", gpu=True, driver="535.183.01")
    assert resolution.frameworks == ("torch==2.13.0+cu126",)
    assert resolution.bases[0] == "nvidia/cuda:12.6.3-base-ubuntu24.04"
    assert (resolution.min_driver, resolution.special_builds) == ("525", ("torch 2.13.0 for CUDA 12.6",))


def test_a_very_old_driver_gets_an_older_release_unless_one_is_required() -> None:
    assert decide("torch", gpu=True, driver="470.57").frameworks == ("torch==2.7.1+cu118",)
    with pytest.raises(
        ConfigError, match=r"torch 2\.13\.0 needs NVIDIA driver 580 or newer; this host has 470\.57"
    ):
        decide("torch", requirements="torch==2.13.0", gpu=True, driver="470.57")


def test_a_driver_that_runs_nothing_is_refused_with_the_hint() -> None:
    with pytest.raises(ConfigError) as caught:
        decide("tensorflow", gpu=True, driver="440.33")
    assert str(caught.value) == "tensorflow 2.21.0 needs NVIDIA driver 525 or newer; this host has 440.33"
    assert caught.value.hint == "update the driver"


def resolver_says(torch: str, tensorflow: str) -> bool:
    """What pip's resolver found for torch with tensorflow[and-cuda]."""
    torch_minor, tensorflow_minor = (int(version.split(".")[1]) for version in (torch, tensorflow))
    return torch_minor >= 11 or (torch_minor >= 7 and tensorflow_minor == 20)


@pytest.mark.parametrize("torch", TORCH)
@pytest.mark.parametrize("tensorflow", TENSORFLOW)
def test_every_pair_of_gpu_frameworks_is_answered_as_the_resolver_does(torch: str, tensorflow: str) -> None:
    asked = f"torch=={torch}\ntensorflow=={tensorflow}"
    if not resolver_says(torch, tensorflow):
        with pytest.raises(ConfigError, match="both cannot use the GPU in one image"):
            decide("torch", "tensorflow", requirements=asked, gpu=True)
    elif (torch, tensorflow) == ("2.15.0", "2.15.1"):
        # 3.11 is all that both have wheels for, and no CUDA 13.2 base has it.
        assert decide("torch", "tensorflow", requirements=asked, gpu=True).bases == (
            "detbuild-base:cpu-debian12-py3.11",
        )
    else:
        resolution = decide("torch", "tensorflow", requirements=asked, gpu=True)
        assert resolution.frameworks == (f"torch=={torch}", f"tensorflow[and-cuda]=={tensorflow}")


def test_a_pair_on_a_cpu_never_conflicts() -> None:
    asked = "torch==2.5.1\ntensorflow==2.19.1"
    assert decide("torch", "tensorflow", requirements=asked).frameworks == (
        "torch==2.5.1",
        "tensorflow==2.19.1",
    )


def test_the_free_half_of_a_pair_follows_the_pinned_one() -> None:
    resolution = decide("torch", "tensorflow", requirements="torch==2.9.1", gpu=True)
    assert resolution.frameworks == ("torch==2.9.1", "tensorflow[and-cuda]==2.20.0")


def test_tensorflow_without_gpu_packages_goes_with_any_torch() -> None:
    resolution = decide("torch", "tensorflow", requirements="torch==2.5.1\ntensorflow-cpu==2.19.1", gpu=True)
    assert resolution.frameworks == ("torch==2.5.1", "tensorflow-cpu==2.19.1")
    assert resolution.cuda == "12.4"


def test_the_cpu_project_of_tensorflow_is_taken_where_it_exists() -> None:
    assert decide("tensorflow").frameworks == ("tensorflow-cpu==2.21.0",)
    assert decide("tensorflow", machine="aarch64").frameworks == ("tensorflow==2.21.0",)
    assert decide("tensorflow", requirements="tensorflow>=2.16,<2.17").frameworks == ("tensorflow==2.16.2",)


def test_a_range_gets_the_default_where_it_fits_and_else_the_newest() -> None:
    assert decide("torch", requirements="torch>=2.5").frameworks == ("torch==2.13.0",)
    assert decide("torch", requirements="torch~=2.9.0").frameworks == ("torch==2.9.1",)


@pytest.mark.parametrize(
    ("asked", "line", "assumed"),
    [
        ("torch==2.99.0", "torch==2.99.0", "2.15.0"),
        ("torch==1.12.1", "torch==1.12.1", "2.4.1"),
        ("torch>=2.99", "torch>=2.99", "2.15.0"),
        ("torch<2", "torch<2", "2.4.1"),
    ],
)
def test_a_version_that_the_table_lacks_is_pips_to_find(asked: str, line: str, assumed: str) -> None:
    resolution = decide("torch", requirements=asked)
    assert resolution.frameworks == (line,)
    assert [re.search(r"treated like (\S+)", warning)[1] for warning in resolution.warnings] == [assumed]


def test_a_framework_from_an_address_is_left_to_the_requirements() -> None:
    resolution = decide("torch", requirements="torch @ https://example.org/torch.whl")
    assert (resolution.frameworks, resolution.companions) == ((), ())


def test_a_build_of_an_index_that_only_the_requirements_know_is_left_to_them() -> None:
    assert (
        decide("torch", requirements="--index-url https://example.org\ntorch==2.13.0+rocm6").frameworks == ()
    )


def test_a_pinned_build_of_the_table_is_kept() -> None:
    resolution = decide("torch", requirements="torch==2.4.1+cu118", gpu=True)
    assert resolution.frameworks == ("torch==2.4.1+cu118",)
    assert (resolution.cuda, len(resolution.special_builds)) == ("11.8", 1)


def test_a_pin_for_another_python_does_not_count() -> None:
    asked = 'torch==2.4.1 ; python_version < "3.10"\ntorch==2.9.1 ; python_version >= "3.10"'
    assert decide("torch", requirements=asked).frameworks == ("torch==2.9.1",)


def test_the_nearest_python_is_taken_where_the_hosts_has_no_wheels() -> None:
    resolution = decide("tensorflow", requirements="tensorflow==2.15.1", python="3.13")
    assert resolution.bases[0] == "python:3.11-slim-bookworm"
    assert resolution.reason.endswith("Python 3.11, the nearest to this host's 3.13")


def test_frameworks_without_a_common_python_are_refused() -> None:
    table = TABLE
    needs = ContextNeeds(frameworks=frozenset({"tensorflow"}), requirements=required("tensorflow==2.15.1"))
    with pytest.raises(
        ConfigError, match=r"no base image fits: tensorflow-?\w* 2\.15\.1 has wheels for Python 3\.9 to 3\.11"
    ):
        resolve(needs, table=table, target=Target(gpu=False, python="3.11", machine="riscv64"))


def test_no_framework_still_gives_a_base() -> None:
    resolution = decide()
    assert resolution.frameworks == resolution.companions == ()
    assert resolution.reason == "the context imports no framework; Python 3.11, as on this host"


def test_the_users_image_is_taken_as_it_is() -> None:
    needs = ContextNeeds(frameworks=frozenset({"torch"}))
    target = Target(gpu=True, python="3.11", machine="x86_64")
    assert resolve(needs, table=TABLE, target=target, image="me/torch:1") == Resolution(
        bases=("me/torch:1",), own_image=True, reason="me/torch:1 is the experiment's environment.image"
    )


def test_an_answer_takes_no_noticeable_time() -> None:
    start = time.perf_counter()
    decide("torch", "tensorflow", gpu=True)
    assert time.perf_counter() - start < 0.5


# --- markers and specifiers: pip's own are the oracle -------------------------------------------------------

SPECIFIERS = st.sampled_from(
    [
        "",
        ">=2.6",
        "<2.10",
        ">=2.5,<2.9",
        "~=2.7.0",
        "!=2.13.0",
        "==2.8.*",
        "==2.9.1",
        ">2.10",
        "<=2.12.1",
        "===2.11.0",
    ]
)
MARKERS = st.sampled_from(
    [
        "",
        'python_version < "3.12"',
        'python_version >= "3.12"',
        'python_version == "3.11"',
        'sys_platform == "darwin"',
        'platform_machine == "x86_64" and python_full_version < "3.13"',
        'extra == "gpu"',
    ]
)
LINES = st.lists(st.tuples(st.sampled_from(["torch", "Torch[opt-einsum]"]), SPECIFIERS, MARKERS), max_size=3)


def pip_allows(lines: list[tuple[str, str, str]], version: str, python: str) -> bool:
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.1",
        "sys_platform": "linux",
        "platform_machine": "x86_64",
        "extra": "",
    }
    return all(
        PipSpecifiers(specifiers).contains(version)
        for _, specifiers, marker in lines
        if not marker or PipMarker(marker).evaluate(environment)
    )


@settings(deadline=None)
@given(asked=LINES, limits=LINES, python=st.sampled_from(["3.10", "3.11", "3.12", "3.13"]))
def test_the_framework_is_one_that_pip_would_take_with_the_python_of_each_base(
    asked: list[tuple[str, str, str]], limits: list[tuple[str, str, str]], python: str
) -> None:
    def text(lines: list[tuple[str, str, str]]) -> str:
        return "".join(f"{n}{spec}{f'; {marker}' if marker else ''}\n" for n, spec, marker in lines)

    limits = [("torch", *rest) for _, *rest in limits]
    requirements = required(f"{text(asked)}-c limits.txt\n", **{"limits.txt": text(limits).encode()})
    needs = ContextNeeds(frameworks=frozenset({"torch"}), requirements=requirements)
    target = Target(gpu=False, python=python, machine="x86_64")
    pins = [*asked, *limits]
    try:
        resolution = resolve(needs, table=TABLE, target=target)
    except ConfigError:  # exact versions that contradict each other, or one without a wheel for any base
        assume(False)
    version = resolution.builds[0].split()[1]
    for reference in resolution.bases:
        base = TABLE.base(reference)
        assert base is not None
        if not resolution.warnings:
            assert pip_allows(pins, version, base.python)
        else:
            assert not any(pip_allows(pins, known, base.python) for known in TORCH)


def test_versions_that_contradict_each_other_are_told_with_their_places() -> None:
    with pytest.raises(ConfigError) as caught:
        decide("torch", requirements="torch==2.9.1\ntorch<2.8")
    assert str(caught.value) == (
        "the requirements contradict each other: "
        "torch==2.9.1 (requirements.txt:1), torch<2.8 (requirements.txt:2)"
    )


def test_the_python_of_the_base_decides_about_markers() -> None:
    lines = 'torch==2.6.0; python_version < "3.12"\ntorch==2.13.0; python_version >= "3.12"'
    assert decide("torch", requirements=lines, python="3.11").frameworks == ("torch==2.6.0",)
    assert decide("torch", requirements=lines, python="3.12").frameworks == ("torch==2.13.0",)


RESOLUTION = resolve(ContextNeeds(), table=TABLE, target=Target(gpu=False, python="3.11", machine="x86_64"))


def script(folder: Path, text: str) -> Path:
    (folder / "bootstrap.sh").write_text(text)
    return folder


def test_a_base_that_is_there_is_taken_before_one_that_must_be_pulled() -> None:
    there = {"detbuild-base:cpu-debian12-py3.11"}
    assert choose_base(RESOLUTION, there.__contains__) == "detbuild-base:cpu-debian12-py3.11"
    assert choose_base(RESOLUTION, lambda _: False) == "python:3.11-slim-bookworm"


def test_only_a_fitting_base_is_worth_making() -> None:
    assert can_bootstrap(RESOLUTION, TABLE, "detbuild-base:cpu-debian12-py3.11")
    assert not can_bootstrap(RESOLUTION, TABLE, "python:3.11-slim-bookworm")
    assert not can_bootstrap(RESOLUTION, TABLE, "detbuild-base:unheard-of")


def test_the_script_is_asked_for_the_tag_and_for_the_file(tmp_path: Path) -> None:
    images = script(tmp_path, 'if [ "$1" = --tag ]; then echo base:1; else echo rootfs >"$1"; fi\n')
    assert bootstrap_tag(images) == "base:1"
    bootstrap(images, tmp_path / "root.tar")
    assert (tmp_path / "root.tar").read_text() == "rootfs\n"


def test_the_scripts_own_words_are_the_reason_of_a_failure(tmp_path: Path) -> None:
    images = script(tmp_path, "echo 'noise' >&2; echo 'bootstrap: needs root' >&2; exit 1\n")
    with pytest.raises(EngineError, match="no base image could be made from Debian packages: needs root"):
        bootstrap(images, tmp_path / "root.tar")


def test_tags_of_the_script_are_in_the_table() -> None:
    text = (images_dir() / "bootstrap.sh").read_text()
    local = {base.reference for base in TABLE.bases if base.local}
    assert all(tag in text for tag in local)
    assert len(local) == text.count("echo detbuild-base:")


DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    "reference",
    [
        "python",
        "python:3.11-slim",
        "me/img:v1",
        "localhost:5000/a/b__c-d.e",
        f"host.example/x@{DIGEST}",
        f"a:b@{DIGEST}",
    ],
)
def test_references_of_the_grammar_pass(reference: str) -> None:
    assert check_reference(reference) == reference


@pytest.mark.parametrize(
    "reference",
    [
        "",
        " python",
        "-x",
        "a\nRUN evil",
        "a b",
        "img:",
        "img@sha256:12",
        "$IMAGE",
        "a//b",
        "img:tag\n",
        "a:" + "t" * 129,
    ],
)
def test_anything_else_is_refused_before_it_reaches_a_dockerfile(reference: str) -> None:
    with pytest.raises(ConfigError, match="is not a valid image reference"):
        check_reference(reference)


def test_capitals_are_named_as_the_fault() -> None:
    with pytest.raises(ConfigError) as caught:
        check_reference("Me/Image:v1")
    assert caught.value.hint == "use lower case: me/image:v1"


@pytest.mark.parametrize(
    ("reference", "python"),
    [
        ("determinedai/environments:py-3.6.9-pytorch-1.4-tf-1.15-cpu-23863bb", "Python 3.6"),
        ("determinedai/environments:cuda-10-py-3.6.9-pytorch-1.4-tf-1.14-gpu", "Python 3.6"),
        ("docker.io/determinedai/environments:py-3.7-pytorch-1.7-tf-1.15-cpu-0.7.0", "Python 3.7"),
        (
            "registry.example:5000/mirror/determinedai/environments-dev:py-3.9-pytorch-1.12-cpu-0.29",
            "Python 3.9",
        ),
        ("determinedai/environments:cuda-11.3-pytorch-1.12-tf-2.11-gpu-2b7e2a1", "a Python before 3.10"),
        ("determinedai/environments:cuda-11.2-tf-2.8-gpu-0.24.0", "a Python before 3.10"),
    ],
)
def test_images_of_determined_whose_python_is_too_old_are_refused(reference: str, python: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_python(reference)
    assert f"is an image of Determined with {python}; detbuild needs 3.10 or newer" in str(caught.value)
    assert caught.value.hint.startswith("remove environment.image")


@pytest.mark.parametrize(
    "reference",
    [
        "determinedai/environments:py-3.10-pytorch-2.0-tf-2.11-cpu-b3b9096",
        "determinedai/environments:cuda-11.8-pytorch-2.0-gpu-mpi-0.31.1",
        "determinedai/pytorch-ngc:0.38.0",
        "determinedai/environments@sha256:" + "0" * 64,
        "me/environments:py-3.6",
        "python:3.11-slim",
    ],
)
def test_other_images_are_left_alone(reference: str) -> None:
    check_python(reference)
