from __future__ import annotations

import pytest

from detbuild.errors import ConfigError
from detbuild.image.reference import check_reference, image_for

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
    with pytest.raises(ConfigError, match="is not an image reference"):
        check_reference(reference)


def test_capitals_are_named_as_the_fault() -> None:
    with pytest.raises(ConfigError) as caught:
        check_reference("Me/Image:v1")
    assert caught.value.mend == "names are in lower case: me/image:v1"


def test_the_image_is_that_of_the_device() -> None:
    images = {"cpu": "me/cpu", "gpu": "me/gpu"}
    assert image_for(images, slots_per_trial=0) == "me/cpu"
    assert image_for(images, slots_per_trial=2) == "me/gpu"
    assert image_for({"cuda": "me/cuda"}, slots_per_trial=0) == ""
    assert image_for(None, slots_per_trial=0) == ""


def test_a_bad_image_of_a_device_is_named_by_its_key() -> None:
    with pytest.raises(ConfigError, match=r"environment\.image\.cuda: 'a b'"):
        image_for({"cuda": "a b"}, slots_per_trial=1)
