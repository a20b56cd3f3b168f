"""A real Docker Engine and an image to run in it; what tests leave behind is removed in the end."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from detbuild.engine.docker import DockerEngine
from tests.contracts import TEST_LABEL

BASE_IMAGE = "detbuild-base:cpu-debian12-py3.11"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def engine():
    engine = DockerEngine()
    yield engine
    for container in engine.find({TEST_LABEL: ""}):
        engine.remove(container.id)
    engine.close()


@pytest.fixture(scope="session")
def base_image(engine: DockerEngine) -> str:
    """The id of a small image with sh and python3, made from Debian packages when it is not there."""
    if engine.image_id(BASE_IMAGE) is None:
        subprocess.run(["sh", ROOT / "images" / "bootstrap.sh"], check=True)
    image = engine.image_id(BASE_IMAGE)
    assert image is not None
    return image
