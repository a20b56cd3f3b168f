"""Where the base image of a build comes from: the engine, a registry, or this host's Debian packages."""

from __future__ import annotations

from pathlib import Path

import pytest

from detbuild.config.environment import RegistryAuth
from detbuild.engine.bases import bootstrap_base, ensure_base
from detbuild.errors import EngineError
from detbuild.events import ImagePulling
from detbuild.image.resolve import IMPORT_CHANGES, Resolution
from tests.fakes import FakeEngine, FakeImage

PULLED = "python:3.11-slim-bookworm"
LOCAL = "detbuild-base:cpu-debian12-py3.11"
RESOLUTION = Resolution(bases=(PULLED, LOCAL), reason="a test")


def fail(_images: Path, *_: object) -> str:
    raise EngineError("no base image could be made from Debian packages: needs root")


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def debian(monkeypatch: pytest.MonkeyPatch) -> None:
    """This host can build its own base."""
    monkeypatch.setattr("detbuild.engine.bases.bootstrap_tag", lambda _images: LOCAL)
    monkeypatch.setattr("detbuild.engine.bases.bootstrap", lambda _images, path: path.write_bytes(b"rootfs"))


def test_a_base_that_the_engine_has_is_not_pulled(engine: FakeEngine) -> None:
    engine.add_image(LOCAL)
    events: list[object] = []
    assert ensure_base(RESOLUTION, engine, events.append) == LOCAL
    assert (events, engine.effects.done) == ([], [])


def test_a_missing_base_is_pulled_with_the_credentials_of_the_config(engine: FakeEngine) -> None:
    engine.registry[PULLED] = FakeImage("sha256:1", {})
    events: list[object] = []
    auth = RegistryAuth(username="me", password="hunter2")
    assert ensure_base(RESOLUTION, engine, events.append, auth=auth) == PULLED
    assert events == [ImagePulling(PULLED, "done")]
    assert engine.credentials == {"username": "me", "password": "hunter2"}


def test_force_pulls_a_base_that_the_engine_has(engine: FakeEngine) -> None:
    engine.add_image(PULLED)
    engine.registry[PULLED] = FakeImage("sha256:newer", {})
    ensure_base(RESOLUTION, engine, lambda _: None, force_pull=True)
    assert engine.image_id(PULLED) == "sha256:newer"


@pytest.mark.usefixtures("debian")
def test_without_a_registry_a_base_is_built_from_debian_packages(engine: FakeEngine) -> None:
    events: list[object] = []
    assert ensure_base(RESOLUTION, engine, events.append) == LOCAL
    assert events == [ImagePulling(LOCAL, "building from Debian packages")]
    assert engine.image_id(LOCAL) is not None


@pytest.mark.usefixtures("debian")
def test_a_users_own_image_is_not_replaced_by_one_from_debian_packages(engine: FakeEngine) -> None:
    own = Resolution(bases=("corp/own:1",), reason="a test", own_image=True)
    with pytest.raises(EngineError, match="cannot pull corp/own:1"):
        ensure_base(own, engine, lambda _: None)
    assert engine.image_id(LOCAL) is None


def test_the_error_of_the_pull_is_shown_where_no_base_can_be_built(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detbuild.engine.bases.bootstrap_tag", fail)
    with pytest.raises(EngineError, match=f"cannot pull {PULLED}"):
        ensure_base(RESOLUTION, engine, lambda _: None)


@pytest.mark.usefixtures("debian")
def test_bootstrap_imports_one_layer_with_a_path_and_a_command(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported: list[tuple[bytes, tuple[str, ...]]] = []

    def import_image(rootfs_tar: str, *, tag: str, changes: tuple[str, ...]) -> str:
        imported.append((Path(rootfs_tar).read_bytes(), changes))
        return engine.add_image(tag)

    monkeypatch.setattr(engine, "import_image", import_image)
    assert bootstrap_base(engine, lambda _: None) == LOCAL
    assert imported == [(b"rootfs", IMPORT_CHANGES)]


def test_a_failed_bootstrap_leaves_no_image(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detbuild.engine.bases.bootstrap_tag", lambda _images: LOCAL)
    monkeypatch.setattr("detbuild.engine.bases.bootstrap", fail)
    with pytest.raises(EngineError, match="needs root"):
        bootstrap_base(engine, lambda _: None)
    assert engine.images == {}
