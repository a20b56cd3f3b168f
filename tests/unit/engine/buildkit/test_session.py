from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pytest

from detbuild.context.snapshot import ContextSnapshot, Entry
from detbuild.engine.buildkit import wire
from detbuild.engine.buildkit.grpc import NOT_FOUND, GrpcError
from detbuild.engine.buildkit.session import Credentials, FileSync, Sent, context_key, directories, handlers
from detbuild.errors import ContextError
from detbuild.image.plan import ImagePlan

KNOWN = {
    "registry.example:5000": Credentials("user", "pass"),
    "https://index.docker.io/v1/": Credentials("", "identity token"),
}


def ask(path: str, request: bytes = b"") -> bytes:
    call = handlers({"token": b"\x00secret\n"}, KNOWN.get)[path]({})
    call.receive(request)
    (reply,) = call.messages()
    return reply


def test_we_are_well() -> None:
    assert ask("/grpc.health.v1.Health/Check") == b"\x08\x01"


def test_a_secret_is_handed_out_byte_for_byte() -> None:
    path = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
    assert ask(path, wire.blob(1, b"token")) == wire.blob(1, b"\x00secret\n")
    with pytest.raises(GrpcError, match="secret other: not found") as caught:
        ask(path, wire.blob(1, b"other"))
    assert caught.value.status == NOT_FOUND


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("registry.example:5000", ("user", "pass")),
        ("registry-1.docker.io", ("", "identity token")),
        ("public.example", ("", "")),
    ],
)
def test_credentials_are_those_of_the_docker_config(host: str, expected: tuple[str, str]) -> None:
    reply = wire.fields(ask("/moby.filesync.v1.Auth/Credentials", wire.blob(1, host.encode())))
    assert (wire.text(reply, 1), wire.text(reply, 2)) == expected


STAT, REQ, DATA, FIN, ERR = range(5)


@dataclass(frozen=True)
class Packet:
    kind: int
    path: str = ""
    number: int = 0
    data: bytes = b""


def packet(message: bytes | None) -> Packet | None:
    if message is None:
        return None
    fields = wire.fields(message)
    stat = wire.fields(b"".join(wire.blobs(fields, 2)))
    path = b"".join(wire.blobs(stat, 1)).decode("utf-8", "surrogateescape")
    return Packet(wire.number(fields, 1), path, wire.number(fields, 3), b"".join(wire.blobs(fields, 4)))


def file(path: str, body: bytes) -> Entry:
    return Entry(path, "file", 0o644, len(body), hashlib.sha256(body).hexdigest(), body=body)


def plan(**trees: ContextSnapshot) -> ImagePlan:
    return ImagePlan(tag="x:1", base_image="scratch", dockerfile="FROM scratch\n", trees=trees)


CONTEXT = ContextSnapshot((file("a.py", b"aa"), Entry("d", "dir", 0o755), file("d/b.py", b"b")))
PLAN = plan(harness=ContextSnapshot((file("h.py", b"h"),)), context=CONTEXT)


def listed(*paths: str, name: str = "context", header: str = "followpaths") -> list[str]:
    call = FileSync(directories(PLAN)).diff_copy(
        {"dir-name": (name,), header: paths} if paths else {"dir-name": (name,)}
    )
    found = []
    for message in call.messages():
        seen = packet(message)
        if seen == Packet(STAT):
            return found
        found.append(seen.path)
    raise AssertionError("the list has no end")


def test_each_tree_is_a_directory_in_order() -> None:
    assert listed() == ["context", "context/a.py", "context/d", "context/d/b.py", "harness", "harness/h.py"]


def test_the_dockerfile_is_a_directory_of_its_own() -> None:
    assert listed(name="dockerfile") == ["Dockerfile"]
    assert listed(name="other") == []


@pytest.mark.parametrize(
    ("asked", "paths"),
    [
        (["harness"], ["harness", "harness/h.py"]),
        (["/harness/"], ["harness", "harness/h.py"]),
        (["context/d"], ["context", "context/d", "context/d/b.py"]),
        (
            ["context/d/*.py", "harness"],
            ["context", "context/d", "context/d/b.py", "harness", "harness/h.py"],
        ),
        ([".dockerignore"], []),
        (["."], ["context", "context/a.py", "context/d", "context/d/b.py", "harness", "harness/h.py"]),
        (["context/d/b.pyc"], ["context", "context/d"]),
    ],
)
def test_only_what_is_asked_for_is_listed(asked, paths) -> None:
    assert listed(*asked) == paths
    assert listed(*asked, header="include-patterns") == paths


def test_encoded_paths_are_understood() -> None:
    call = FileSync(directories(plan(é=ContextSnapshot()))).diff_copy(
        {"dir-name": ("context",), "followpaths": ("%C3%A9",), "followpaths-encoded": ("1",)}
    )
    assert [entry.path for entry in call.entries] == ["é"]


def request(number: int) -> bytes:
    return wire.integer(1, REQ) + wire.integer(3, number)


def test_a_transfer_sends_what_is_requested_and_no_more() -> None:
    files = FileSync(directories(PLAN))
    call = files.diff_copy({"dir-name": ("context",)})
    said = call.messages()
    for _ in range(7):
        next(said)
    assert next(said) is None
    call.receive(request(3))
    call.receive(request(1))
    assert [packet(next(said)) for _ in range(5)] == [
        Packet(DATA, number=3, data=b"b"),
        Packet(DATA, number=3),
        Packet(DATA, number=1, data=b"aa"),
        Packet(DATA, number=1),
        None,
    ]
    call.receive(wire.integer(1, FIN))
    assert [packet(message) for message in said] == [Packet(FIN)]
    assert files.sent == Sent(files=2, size=3)


def test_the_dockerfile_does_not_count_as_context() -> None:
    files = FileSync(directories(PLAN))
    call = files.diff_copy({"dir-name": ("dockerfile",)})
    call.receive(request(0))
    call.receive(wire.integer(1, FIN))
    assert packet(list(call.messages())[2]).data == b"FROM scratch\n"
    assert files.sent == Sent()


def test_a_file_that_is_not_what_it_was_ends_the_transfer(tmp_path) -> None:
    (tmp_path / "a").write_text("later")
    entry = Entry(
        "a", "file", size=5, sha256=hashlib.sha256(b"first").hexdigest(), source=str(tmp_path / "a")
    )
    files = FileSync(directories(plan(context=ContextSnapshot((entry,)))))
    call = files.diff_copy({"dir-name": ("context",)})
    call.receive(request(1))
    last = [packet(message) for message in call.messages()][-1]
    assert (last.kind, "changed" in last.data.decode()) == (ERR, True)
    assert isinstance(files.sent.failure, ContextError)


def stat_of(entry: Entry) -> wire.Fields:
    call = FileSync({"context": (entry,)}).diff_copy({"dir-name": ("context",)})
    (stat,) = wire.blobs(wire.fields(next(call.messages())), 2)
    return wire.fields(stat)


def test_time_follows_the_content_within_the_first_second_of_the_epoch() -> None:
    """BuildKit compares size and time only: an edit that keeps the size must still be seen."""
    times = {wire.number(stat_of(file("a", str(n).encode())), 6) for n in range(10, 99)}
    assert len(times) == 89
    assert all(0 <= time < 10**9 for time in times)
    assert wire.number(stat_of(file("a", b"x")), 6) == wire.number(stat_of(file("b", b"x")), 6)


@pytest.mark.parametrize(
    ("entry", "mode"),
    [
        (file("a", b""), 0o644),
        (Entry("a", "file", 0o4755), 0o755),
        (Entry("a", "dir", 0o755), 1 << 31 | 0o755),
        (Entry("a", "link", 0o777, target="b"), 1 << 27 | 0o777),
    ],
)
def test_modes_are_those_of_go_without_owner_or_setuid(entry, mode) -> None:
    stat = stat_of(entry)
    assert (wire.number(stat, 2), wire.number(stat, 3), wire.number(stat, 4)) == (mode, 0, 0)
    assert wire.text(stat, 7) == entry.target


def test_names_keep_their_bytes() -> None:
    assert wire.blobs(stat_of(file("\udcff\n", b"")), 1) == [b"\xff\n"]


def test_the_context_key_names_the_directories_and_not_their_content() -> None:
    def key(root: str, body: bytes) -> str:
        entry = Entry("d/a", "file", sha256=hashlib.sha256(body).hexdigest(), source=f"{root}/d/a")
        return context_key(plan(context=ContextSnapshot((Entry("d", "dir"), entry))))

    assert key("/one", b"1") == key("/one", b"2")
    assert key("/one", b"1") != key("/two", b"1")
