"""A real Docker Engine and an image to run in it; names and tags that go with the test."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

import docker
import pytest

from detbuild.engine.docker import DockerEngine
from detbuild.image.resolve import IMPORT_CHANGES, bootstrap
from tests.cdi import fake_gpus
from tests.contracts import TEST_LABEL

BASE_IMAGE = "detbuild-base:cpu-debian12-py3.11"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def engine():
    engine = DockerEngine()
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def api():
    """docker-py itself, for looking at what the engine has without asking the code under test."""
    client = docker.from_env().api
    yield client
    # what lost its tag to a later build of a test; another run of these tests may still need its newest
    client.prune_images(filters={"label": TEST_LABEL, "dangling": True, "until": "10m"})
    client.close()


@pytest.fixture(scope="session")
def base_image(engine: DockerEngine, tmp_path_factory) -> str:
    """The tag of a small image with sh and python3, made from Debian packages when it is not there."""
    if engine.image_id(BASE_IMAGE) is None:
        rootfs = tmp_path_factory.mktemp("base") / "rootfs.tar"
        bootstrap(ROOT / "images", rootfs)
        engine.import_image(str(rootfs), tag=BASE_IMAGE, changes=IMPORT_CHANGES)
    return BASE_IMAGE


@pytest.fixture
def tag(engine: DockerEngine):
    """A tag of the test's own; the image goes with it."""
    tag = f"detbuild-test:{uuid.uuid4().hex[:12]}"
    yield tag
    engine.remove_image(tag)


@pytest.fixture
def name(engine: DockerEngine):
    """A container name of the test's own; the container goes with it."""
    name = f"detbuild-test-{uuid.uuid4().hex[:12]}"
    yield name
    engine.remove(name)


@pytest.fixture
def gpus(engine: DockerEngine):
    """The names of two CDI devices that the engine offers for the time of the test."""
    with fake_gpus(2) as names:
        deadline = time.monotonic() + 5
        while not set(names) <= set(engine.info().cdi_devices):  # the engine watches the folder
            assert time.monotonic() < deadline, "the engine does not see CDI devices"
            time.sleep(0.02)
        yield names
