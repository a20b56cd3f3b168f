"""Builds by an engine without sessions, and the events of their progress; sessions need a real engine."""

from __future__ import annotations

import base64
import io
import tarfile
from dataclasses import replace

import pytest

from detbuild.engine.buildkit import wire
from detbuild.errors import BuildError, EngineError
from detbuild.events import BuildOutput, BuildStep, ContextSent, Warned
from tests.contracts import tiny_plan


def trace(name: str, *, error: str = "") -> dict[str, str]:
    stamp = wire.integer(1, 1)
    vertex = wire.blob(1, b"1") + wire.blob(3, name.encode()) + wire.blob(5, stamp) + wire.blob(6, stamp)
    data = wire.message(1, vertex + wire.integer(4, not error) + wire.blob(7, error.encode()))
    return {"id": "moby.buildkit.trace", "aux": base64.b64encode(data).decode()}


IMAGE = {"id": "moby.image.id", "aux": {"ID": "sha256:2"}}


def test_an_engine_without_sessions_gets_the_whole_context(daemon, engine) -> None:
    daemon.answers["POST /build"] = (
        200,
        [trace("step"), {"id": "moby.buildkit.trace", "aux": "AA=="}, IMAGE],
    )
    events = []
    assert engine.build(tiny_plan("x:1", a="1", b="22"), events.append) == "sha256:2"
    warned, *rest = events
    assert isinstance(warned, Warned)
    assert "404" in warned.message
    assert rest == [BuildStep("step", cached=True, seconds=0), ContextSent(files=2, size=3)]
    with tarfile.open(fileobj=io.BytesIO(daemon.bodies["POST /build"])) as archive:
        assert archive.getnames() == ["Dockerfile", "context", "context/a", "context/b"]


def test_a_failed_build_names_its_step(daemon, engine) -> None:
    daemon.answers["POST /build"] = (
        200,
        [trace("[2/2] RUN x", error="exit code: 1"), {"error": "exit code: 1"}],
    )
    with pytest.raises(BuildError, match="build step failed: exit code: 1") as caught:
        engine.build(tiny_plan("x:1"), lambda _: None)
    assert "[2/2] RUN x" in str(caught.value)


STALE, FRESH = "localhost:1/detbuild-build:1000-ab", f"localhost:1/detbuild-build:{10**10}-cd"


def test_with_the_containerd_store_a_build_uses_its_base_under_a_name_of_this_host(daemon, engine) -> None:
    status = [["driver-type", "io.containerd.snapshotter.v1"]]
    daemon.answers |= {
        "GET /info": (200, {"DriverStatus": status}),
        "GET /images/json": (200, [[{"RepoTags": [STALE, FRESH, "mine:1"]}, {"RepoTags": None}]]),
        "POST /images/base:1/tag": (201, {}),
        "POST /build": (
            200,
            [trace("[1/1] FROM base:1"), {"id": "moby.image.id", "aux": {"ID": "sha256:7"}}],
        ),
    }
    plan = replace(tiny_plan("x:1"), base_image="base:1", dockerfile="# x\nFROM base:1\nRUN FROM base:1\n")
    assert engine.build(plan, lambda _: None) == "sha256:7"
    (tagged,) = (asked for asked in daemon.asked if asked.startswith("POST /images/base:1/tag?"))
    alias = f"localhost:1/detbuild-build:{tagged.partition('&tag=')[2]}"
    removed = [asked for asked in daemon.asked if asked.startswith("DELETE")]
    assert removed == [f"DELETE /images/{name}?noprune=1" for name in (STALE, alias)]
    with tarfile.open(fileobj=io.BytesIO(daemon.bodies["POST /build"])) as archive:
        dockerfile = archive.extractfile("Dockerfile").read().decode()
    assert dockerfile == f"# x\nFROM {alias}\nRUN FROM base:1\n"


def test_an_engine_that_does_not_say_the_id_is_asked_for_the_tag(daemon, engine) -> None:
    """Podman: its progress is text."""
    daemon.answers["POST /build"] = (200, [{"stream": "STEP 1/2: FROM scratch\n"}])
    daemon.answers["GET /images/x:1/json"] = (200, {"Id": "sha256:3"})
    events = []
    assert engine.build(tiny_plan("x:1"), events.append) == "sha256:3"
    assert BuildOutput("", "STEP 1/2: FROM scratch") in events


def test_a_build_that_ends_without_an_image_is_an_engine_error(daemon, engine) -> None:
    daemon.answers["POST /build"] = (200, [trace("step")])
    with pytest.raises(EngineError):
        engine.build(tiny_plan("x:1"), lambda _: None)
