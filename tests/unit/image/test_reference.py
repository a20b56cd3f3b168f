from __future__ import annotations

import pytest

from detbuild.errors import ConfigError
from detbuild.image.reference import check_python, check_reference, image_for

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


def test_the_image_is_that_of_the_device() -> None:
    images = {"cpu": "me/cpu", "gpu": "me/gpu"}
    assert image_for(images, slots_per_trial=0) == "me/cpu"
    assert image_for(images, slots_per_trial=2) == "me/gpu"
    assert image_for({"cuda": "me/cuda"}, slots_per_trial=0) == ""
    assert image_for(None, slots_per_trial=0) == ""


def test_a_bad_image_of_a_device_is_named_by_its_key() -> None:
    with pytest.raises(ConfigError, match=r"environment\.image\.cuda: 'a b'"):
        image_for({"cuda": "a b"}, slots_per_trial=1)


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
