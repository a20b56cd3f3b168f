"""Builds on a real engine: what travels, what arrives, what a failure says, what stays behind."""

from __future__ import annotations

import hashlib
import io
import signal
import subprocess
import sys
import tarfile
import time
import unicodedata
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from detbuild.context.snapshot import ContextSnapshot, Entry
from detbuild.engine.docker import DockerEngine
from detbuild.errors import BuildError, ContextError, EngineError
from detbuild.events import BuildOutput, BuildStep, ContextSent, Event
from detbuild.image.plan import ImagePlan
from tests.contracts import TEST_LABEL, tiny_plan

pytestmark = pytest.mark.engine


def run_plan(tag: str, base_image: str, *run: str, **settings) -> ImagePlan:
    lines = [f"FROM {base_image}", *(f"RUN {line}" for line in run)]
    return ImagePlan(
        tag=tag,
        base_image=base_image,
        dockerfile="\n".join(lines) + "\n",
        trees={},
        labels={TEST_LABEL: "build"},
        **settings,
    )


def context_plan(tag: str, *entries: Entry) -> ImagePlan:
    return replace(tiny_plan(tag), trees={"context": ContextSnapshot(entries)})


def file(path: str, body: bytes, mode: int = 0o644) -> Entry:
    return Entry(path, "file", mode, len(body), hashlib.sha256(body).hexdigest(), body=body)


def on_disk(root: Path, **files: str) -> ContextSnapshot:
    """A snapshot whose files are read when they are sent."""
    entries = []
    for name, text in sorted(files.items()):
        (root / name).write_text(text)
        source = str(root / name)
        entries.append(replace(file(name, text.encode()), body=None, source=source))
    return ContextSnapshot(tuple(entries))


def build(engine: DockerEngine, plan: ImagePlan) -> list[Event]:
    events: list[Event] = []
    engine.build(plan, events.append)
    return events


def sent(events: list[Event]) -> ContextSent:
    (event,) = [event for event in events if isinstance(event, ContextSent)]
    return event


def in_image(api, tag: str) -> dict[str, tarfile.TarInfo]:
    """What is below /context in the image, by path."""
    container = api.create_container(tag, command=["none"], labels={TEST_LABEL: "export"})["Id"]
    try:
        data = io.BytesIO(b"".join(api.export(container)))
    finally:
        api.remove_container(container)
    with tarfile.open(fileobj=data, errors="surrogateescape") as archive:
        members = {member.name: member for member in archive}
    prefix = "context/"
    return {name.removeprefix(prefix): member for name, member in members.items() if name.startswith(prefix)}


# what travels


def test_only_the_changed_file_travels(engine, tag, tmp_path) -> None:
    mark = uuid.uuid4().hex  # BuildKit may still have the files of an earlier run of this test
    files = {f"{mark}-{number:03}.py": f"value = {number}" for number in range(200)}
    plan = tiny_plan(tag)
    first = build(engine, replace(plan, trees={"context": on_disk(tmp_path, **files)}))
    assert sent(first).files == 200
    files[f"{mark}-007.py"] = "value = 8"  # of the same size
    changed = replace(plan, trees={"context": on_disk(tmp_path, **files)})
    assert sent(build(engine, changed)) == ContextSent(files=1, size=9)
    assert sent(build(engine, changed)) == ContextSent(files=0, size=0)


def test_a_large_file_arrives_whole(engine, api, tag, tmp_path) -> None:
    body = b"0123456789abcdef" * (300 << 10)  # 4.7 MiB: above every window and limit on the way
    build(engine, context_plan(tag, file("large", body)))
    assert in_image(api, tag)["large"].size == len(body)


def test_a_file_that_changed_since_the_snapshot_ends_the_build(engine, tag, tmp_path) -> None:
    context = on_disk(tmp_path, model="first" + uuid.uuid4().hex)
    (tmp_path / "model").write_text("later" + uuid.uuid4().hex)
    with pytest.raises(ContextError, match="model"):
        engine.build(replace(tiny_plan(tag), trees={"context": context}), lambda _: None)
    assert engine.image_id(tag) is None


def test_a_file_that_is_gone_ends_the_build(engine, tag, tmp_path) -> None:
    context = on_disk(tmp_path, model=uuid.uuid4().hex)
    (tmp_path / "model").unlink()
    with pytest.raises(ContextError, match="model"):
        engine.build(replace(tiny_plan(tag), trees={"context": context}), lambda _: None)


# what arrives


def test_modes_links_and_empty_directories_arrive_without_owner_and_time(engine, api, tag) -> None:
    build(
        engine,
        context_plan(
            tag,
            file("a.py", b"a"),
            Entry("empty", "dir", 0o755),
            Entry("link", "link", 0o777, target="a.py"),
            Entry("nowhere", "link", 0o777, target="missing/../x"),
            file("run.sh", b"#!/bin/sh", 0o755),
        ),
    )
    arrived = in_image(api, tag)
    assert {path: (m.type, oct(m.mode), m.linkname) for path, m in arrived.items()} == {
        "a.py": (tarfile.REGTYPE, "0o644", ""),
        "empty": (tarfile.DIRTYPE, "0o755", ""),
        "link": (tarfile.SYMTYPE, "0o777", "a.py"),
        "nowhere": (tarfile.SYMTYPE, "0o777", "missing/../x"),
        "run.sh": (tarfile.REGTYPE, "0o755", ""),
    }
    assert {(m.uid, m.gid, m.mtime) for path, m in arrived.items() if path.endswith((".py", ".sh"))} == {
        (0, 0, 0)
    }


def test_setuid_is_not_carried_into_the_image(engine, api, tag) -> None:
    build(engine, context_plan(tag, file("tool", b"x", 0o4755)))
    assert oct(in_image(api, tag)["tool"].mode) == "0o755"


ODD_NAMES = [
    "new\nline",
    " leading space",
    "trailing space ",
    "quote\"and'quote",
    "back\\slash",
    "tab\t",
    "*?[x]",
    "#hash",
    "-dash",
    "$HOME",
    unicodedata.normalize("NFC", "né"),
    unicodedata.normalize("NFD", "né"),
    "x" * 255,
]


@pytest.mark.parametrize(
    "names", [ODD_NAMES, [*ODD_NAMES, "latin\udce9", "\udcff\udcfe"]], ids=["text", "bytes"]
)
def test_odd_names_arrive_byte_for_byte(engine, api, tag, names) -> None:
    ordered = sorted(names, key=lambda name: name.encode("utf-8", "surrogateescape"))
    deep = "/".join(["d" * 200] * 18)
    directories = [Entry("/".join(["d" * 200] * depth), "dir", 0o755) for depth in range(1, 19)]
    entries = [file(name, b"x") for name in ordered] + [*directories, file(f"{deep}/{'f' * 200}", b"x")]
    entries.sort(key=lambda e: e.path.encode("utf-8", "surrogateescape").split(b"/"))
    build(engine, context_plan(tag, *entries))
    arrived = {path for path, member in in_image(api, tag).items() if member.isreg()}
    assert arrived == {*names, f"{deep}/{'f' * 200}"}


def test_a_dockerignore_in_the_users_tree_does_not_matter(engine, api, tag) -> None:
    build(
        engine,
        context_plan(tag, file(".dockerignore", b"*\n"), file("Dockerfile", b"FROM x"), file("a.py", b"a")),
    )
    assert set(in_image(api, tag)) == {".dockerignore", "Dockerfile", "a.py"}


def test_labels_hold_any_text(engine, tag) -> None:
    labels = {TEST_LABEL: "x", "a=b": "c=d", "odd": 'new\nline "quoted" $HOME \\ # é', "empty": ""}
    engine.build(replace(tiny_plan(tag, a="1"), labels=labels), lambda _: None)
    assert engine.image_labels(tag) == labels


@pytest.mark.parametrize(
    "entries", [(), (file("a.py", b"a"), Entry("b", "dir", 0o755), file("b/c.sh", b"c", 0o755))]
)
def test_the_whole_tar_gives_the_same_image_as_the_session(engine, tag, entries) -> None:
    plan = context_plan(tag, *entries)
    in_session = engine.build(plan, lambda _: None)
    engine.remove_image(tag)
    whole = DockerEngine(whole_tar=True)
    try:
        assert whole.build(plan, lambda _: None) == in_session
    finally:
        whole.close()


# secrets


def test_a_secret_reaches_the_step_and_leaves_no_trace(engine, api, tag, base_image) -> None:
    canary = uuid.uuid4().hex
    mount = "--mount=type=secret,id=token"
    plan = run_plan(
        tag,
        base_image,
        f"{mount} sha256sum /run/secrets/token # {uuid.uuid4()}",
        secrets={"token": canary.encode()},
    )
    lines = [event.line for event in build(engine, plan) if isinstance(event, BuildOutput)]
    assert lines == [f"{hashlib.sha256(canary.encode()).hexdigest()}  /run/secrets/token"]
    assert canary not in str(api.inspect_image(tag)) + str(api.history(tag))
    assert canary.encode() not in b"".join(api.get_image(tag))


def test_a_secret_that_is_not_there_is_named(engine, tag, base_image) -> None:
    plan = run_plan(tag, base_image, "--mount=type=secret,id=token,required=true true")
    with pytest.raises(BuildError, match="token"):
        engine.build(plan, lambda _: None)


def test_without_a_session_secrets_are_refused_and_not_lost(tag, base_image) -> None:
    whole = DockerEngine(whole_tar=True)
    with pytest.raises(EngineError, match="cannot pass secrets to a build: token"):
        whole.build(run_plan(tag, base_image, "true", secrets={"token": b"x"}), lambda _: None)
    whole.close()


# progress and failure


def test_steps_tell_what_ran_and_what_was_cached(engine, tag, base_image) -> None:
    word = uuid.uuid4().hex
    plan = run_plan(tag, base_image, f"echo {word}; echo two >&2; printf three")
    first, second = build(engine, plan), build(engine, plan)

    def step(events: list[Event]) -> BuildStep:
        return [e for e in events if isinstance(e, BuildStep) and "RUN echo" in e.name][-1]

    assert sorted(e.line for e in first if isinstance(e, BuildOutput)) == sorted([word, "three", "two"])
    assert (step(first).cached, step(second).cached) == (False, True)
    assert step(first).seconds is not None


def test_a_failing_step_is_named_with_its_last_lines(engine, tag, base_image) -> None:
    plan = run_plan(tag, base_image, "for n in $(seq 50); do echo line $n; done; exit 7")
    with pytest.raises(BuildError) as caught:
        engine.build(plan, lambda _: None)
    words = str(caught.value)
    first, step, *last = words.splitlines()
    assert "exit code: 7" in first
    assert "RUN for n in" in step
    assert last == [f"| line {number}" for number in range(31, 51)]


def test_a_killed_step_is_named_as_memory(engine, tag, base_image) -> None:
    with pytest.raises(BuildError, match="memory ran out"):
        engine.build(run_plan(tag, base_image, "sh -c 'kill -KILL $$'"), lambda _: None)


def test_a_step_without_network_has_none(engine, tag, base_image) -> None:
    plan = run_plan(tag, base_image, f"cat /proc/net/dev # {uuid.uuid4().hex}", pip_network=False)
    lines = [event.line for event in build(engine, plan) if isinstance(event, BuildOutput)]
    assert [line.split(":")[0].strip() for line in lines[2:]] == ["lo"]


def test_a_missing_base_image_is_named(engine, tag) -> None:
    with pytest.raises(BuildError, match="base image localhost:1/none:1 is not available"):
        engine.build(run_plan(tag, "localhost:1/none:1", "true"), lambda _: None)


INTERRUPTED = """
import sys
from detbuild.engine.docker import DockerEngine
from detbuild.image.plan import ImagePlan
tag, base, seconds, whole = sys.argv[1:]
plan = ImagePlan(tag=tag, base_image=base, dockerfile=f"FROM {base}\\nRUN sleep {seconds}\\n", trees={})
try:
    DockerEngine(whole_tar=bool(whole)).build(plan, print)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("whole", ["", "whole"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_an_interrupted_build_stops_and_leaves_nothing(  # noqa: PLR0917  (fixtures)
    engine, api, tag, base_image, number, code, whole
) -> None:
    seconds = str(uuid.uuid4().int % 10**8 + 10**8)
    arguments = [sys.executable, "-c", INTERRUPTED, tag, base_image, seconds, whole]
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL) as client:
        wait_until(lambda: running(f"sleep {seconds}"))
        client.send_signal(number)
        assert client.wait(10) == code
    wait_until(lambda: not running(f"sleep {seconds}"))
    assert engine.image_id(tag) is None
    assert [c["Id"] for c in api.containers(all=True) if seconds in c["Command"]] == []


def running(command: str) -> bool:
    """Whether the host runs it, in whatever container."""
    wanted = command.replace(" ", "\0").encode()
    return any(wanted in cmdline(process) for process in Path("/proc").glob("[0-9]*"))


def cmdline(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def wait_until(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
