from __future__ import annotations

import hashlib
import io
import os
import tarfile
import tracemalloc
from itertools import cycle
from typing import TYPE_CHECKING

import pytest

from detbuild.context.archive import stream
from detbuild.context.snapshot import ContextSnapshot, Entry, file_snapshot, raw
from detbuild.context.walk import snapshot
from detbuild.errors import ContextError

if TYPE_CHECKING:
    from pathlib import Path

GOLDEN = "b4124bd29f9d62dbd712aaeab55e70e098c06eac4e312dccc984e522d9a71db4"


def by_tarfile(entries: list[Entry]) -> bytes:
    """The same archive as the standard library writes it."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT, encoding="utf-8") as tar:
        for entry in entries:
            member = tarfile.TarInfo(entry.path)
            member.mode = entry.mode
            member.type = {"file": tarfile.REGTYPE, "dir": tarfile.DIRTYPE, "link": tarfile.SYMTYPE}[
                entry.kind
            ]
            member.linkname = entry.target
            member.size = entry.size
            tar.addfile(member, io.BytesIO(entry.body or b""))
    return target.getvalue()


def odd_tree() -> ContextSnapshot:
    """Names and targets around the hundred bytes that fit into a header, odd bytes, all kinds."""
    sizes = cycle([0, 1, 511, 512, 513, 5000])
    names = [
        *("n" * length for length in (1, 92, 93, 94, 99, 100, 101, 255)),
        "new\nline",
        "\udcff",
        "\u00e9",
        " ",
    ]
    files = file_snapshot({name: b"x" * next(sizes) for name in names})
    links = [Entry(f"l{length}", "link", 0o777, target="t" * length) for length in (1, 99, 100, 101, 300)]
    folders = [Entry("d" * length, "dir", 0o755) for length in (1, 91, 92, 93, 99, 100, 200)]
    entries = sorted([*files.entries, *links, *folders], key=lambda entry: raw(entry.path).split(b"/"))
    return ContextSnapshot(tuple(entries))


def test_the_bytes_are_those_that_the_standard_library_writes() -> None:
    tree = odd_tree()
    expected = [
        Entry("Dockerfile", "file", size=4, body=b"FROM"),
        Entry("context", "dir", 0o755),
        *(
            Entry(f"context/{e.path}", e.kind, e.mode, e.size, target=e.target, body=e.body)
            for e in tree.entries
        ),
    ]
    assert b"".join(stream({"context": tree}, {"Dockerfile": b"FROM"})) == by_tarfile(expected)


def test_equal_trees_give_equal_bytes_on_every_host() -> None:
    archive = b"".join(
        stream({"context": odd_tree(), "harness": file_snapshot({"a/b": b"c"})}, {"Dockerfile": b""})
    )
    assert hashlib.sha256(archive).hexdigest() == GOLDEN


def test_unpacked_it_is_the_tree(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub/empty").mkdir(parents=True)
    (source / "sub/run.sh").write_text("#!/bin/sh\n")
    (source / "sub/run.sh").chmod(0o755)
    (source / ("x" * 200)).write_bytes(b"x" * 100_000)
    (source / "link").symlink_to("sub/run.sh")
    (source / os.fsdecode(b"\xff\n")).write_bytes(b"odd")
    before = snapshot(source)
    target = tmp_path / "target"
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream({"context": before}, {}))), encoding="utf-8") as tar:
        tar.extractall(target, filter="fully_trusted")
    after = snapshot(target / "context")
    assert after.digest == before.digest
    assert after.entries != ()


def test_members_have_neither_owner_nor_time() -> None:
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream({"context": odd_tree()}, {})))) as tar:
        seen = {(member.uid, member.gid, member.uname, member.gname, member.mtime) for member in tar}
    assert seen == {(0, 0, "", "", 0)}


def test_trees_and_files_are_sorted_by_name() -> None:
    empty = ContextSnapshot()
    archive = b"".join(stream({"b": empty, "a": empty}, {"aa": b"", "Z": b""}))
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert tar.getnames() == ["Z", "a", "aa", "b"]


def test_a_file_of_eight_gibibytes_has_a_size_that_readers_understand() -> None:
    size = 8 << 30
    header = next(stream({"t": ContextSnapshot((Entry("a", "file", size=size, body=b"x" * (1 << 18)),))}, {}))
    assert tarfile.TarInfo.frombuf(header[512:1024], "utf-8", "strict").size == size


def test_memory_stays_flat_however_large_the_files_are(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(200 << 20)
    tree = snapshot(tmp_path)
    tracemalloc.start()
    try:
        length = sum(len(piece) for piece in stream({"context": tree}, {}))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert length > 200 << 20
    assert peak < 8 << 20


@pytest.mark.parametrize("later", [b"1234", b"123456", b"54321"])
def test_a_file_that_changed_stops_the_archive_and_is_named(tmp_path: Path, later: bytes) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    tree = snapshot(tmp_path)
    (tmp_path / "a").write_bytes(later)
    with pytest.raises(ContextError, match=r"^a has "):
        list(stream({"context": tree}, {}))
