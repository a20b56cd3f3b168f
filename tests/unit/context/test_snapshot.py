from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from detbuild.context import snapshot as context_snapshot
from detbuild.context.snapshot import (
    ContextSnapshot,
    Entry,
    HashCache,
    file_snapshot,
    hash_file,
    open_entry,
    shown,
)
from detbuild.context.walk import snapshot
from detbuild.errors import ContextError

if TYPE_CHECKING:
    from pathlib import Path


EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def digest(*entries: Entry) -> str:
    return ContextSnapshot(entries).digest


def test_no_name_can_pass_for_two_entries() -> None:
    two = (Entry("a", "file", sha256=EMPTY), Entry("b", "file", sha256=EMPTY))
    one = Entry(f"a\nfile 644 {EMPTY} b", "file", sha256=EMPTY)
    assert digest(*two) != digest(one)


def test_a_blank_moves_no_text_from_a_links_target_to_its_name() -> None:
    assert digest(Entry("c", "link", target="a b")) != digest(Entry("b c", "link", target="a"))


def test_the_source_of_a_file_does_not_show_in_the_digest() -> None:
    assert digest(Entry("a", "file", source="/x/a")) == digest(Entry("a", "file", source="/y/a"))


def test_a_virtual_tree_has_its_directories_in_front_of_its_files() -> None:
    tree = file_snapshot({"b.txt": b"", "a/z": b"", "a.txt": b"", "a/b/c": b"hello"})
    assert [(entry.path, entry.kind, entry.size) for entry in tree.entries] == [
        ("a", "dir", 0),
        ("a/b", "dir", 0),
        ("a/b/c", "file", 5),
        ("a/z", "file", 0),
        ("a.txt", "file", 0),
        ("b.txt", "file", 0),
    ]
    assert (tree.files, tree.size) == (4, 5)
    assert tree.entries[3].sha256 == EMPTY


def test_odd_names_are_shown_on_one_line_of_plain_text() -> None:
    assert shown("a\nb\x1b[31m\udcff é") == "a\\nb\\x1b[31m\\xff é"


MIB = 1 << 20


def entry_of(path: Path, body: bytes) -> Entry:
    path.write_bytes(body)
    return next(entry for entry in snapshot(path.parent).entries if entry.path == path.name)


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB])
def test_the_content_is_handed_out_whole(tmp_path: Path, size: int) -> None:
    body = os.urandom(size)
    assert b"".join(open_entry(entry_of(tmp_path / "a", body))) == body


def test_the_content_of_a_virtual_file_needs_no_disk() -> None:
    assert b"".join(open_entry(Entry("a", "file", size=5, body=b"hello"))) == b"hello"


@pytest.mark.parametrize(
    ("later", "what"), [(b"1234", "shrunk"), (b"123456", "grown"), (b"54321", "changed"), (b"", "shrunk")]
)
def test_nothing_of_a_small_file_that_changed_is_handed_out(tmp_path: Path, later: bytes, what: str) -> None:
    entry = entry_of(tmp_path / "a", b"12345")
    (tmp_path / "a").write_bytes(later)
    with pytest.raises(ContextError, match=f"^a has {what} since the context was read$"):
        next(open_entry(entry))


def test_the_end_of_a_large_file_that_changed_is_held_back(tmp_path: Path) -> None:
    entry = entry_of(tmp_path / "a", bytes(3 * MIB))
    with (tmp_path / "a").open("r+b") as file:
        file.write(b"x")
    chunks = open_entry(entry)
    assert len(next(chunks)) + len(next(chunks)) == 2 * MIB
    with pytest.raises(ContextError, match="a has changed"):
        next(chunks)


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    entry = entry_of(tmp_path / "a", b"")
    (tmp_path / "a").unlink()
    with pytest.raises(ContextError, match="a can no longer be read: No such file"):
        list(open_entry(entry))


@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_what_took_a_files_place_is_not_opened(tmp_path: Path, kind: str) -> None:
    entry = entry_of(tmp_path / "a", b"12345")
    (tmp_path / "a").unlink()
    os.mkfifo(tmp_path / "a") if kind == "pipe" else (tmp_path / "a").symlink_to("/etc/passwd")
    with pytest.raises(ContextError, match="a can no longer be read"):
        list(open_entry(entry))


class Writer:
    """Stands between the reader and the file, and writes after the first so-many readings."""

    def __init__(self, path: Path, times: int) -> None:
        self.path, self.left, self.read = path, times, os.read

    def __call__(self, descriptor: int, length: int) -> bytes:
        chunk = self.read(descriptor, length)
        if chunk and self.left:
            self.left -= 1
            with self.path.open("ab") as file:
                file.write(b"more")
        return chunk


def test_a_file_written_during_one_reading_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    monkeypatch.setattr(context_snapshot.os, "read", Writer(path, times=2))
    digest, seen = hash_file(os.fsencode(path))
    monkeypatch.undo()
    assert (digest, seen.st_size) == (hash_file(os.fsencode(path))[0], 13)


def test_a_file_that_never_rests_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "train.log"
    path.write_bytes(b"12345")
    (tmp_path / "still").write_bytes(b"")
    monkeypatch.setattr(context_snapshot.os, "read", Writer(path, times=99))
    with pytest.raises(ContextError) as caught:
        snapshot(tmp_path)
    assert str(caught.value).splitlines()[1:] == ["  train.log: it changes while it is read"]
    assert "stop the process that writes to it" in caught.value.hint


LATER = 10_000_000_000


def later() -> int:
    """A clock by which the files of the test are no longer young."""
    return time.time_ns() + LATER


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are really read."""
    names: list[str] = []
    hash_file = context_snapshot.hash_file

    def noted(source: bytes, count: object = None) -> tuple[str, os.stat_result]:
        names.append(Path(os.fsdecode(source)).name)
        return hash_file(source, count)

    monkeypatch.setattr(context_snapshot, "hash_file", noted)
    return names


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_text(name)
    return folder


def test_unchanged_files_are_not_read_again(context: Path, tmp_path: Path, readings: list[str]) -> None:
    first = snapshot(context, cache=HashCache(tmp_path / "h/hashes", clock=later))
    second = snapshot(context, cache=HashCache(tmp_path / "h/hashes", clock=later))
    assert first == second == snapshot(context)
    assert readings == ["a", "b"]
    assert list((tmp_path / "h").iterdir()) == [tmp_path / "h/hashes"]


def test_a_file_that_may_have_changed_is_read_again(
    context: Path, tmp_path: Path, readings: list[str]
) -> None:
    before = snapshot(context, cache=HashCache(tmp_path / "hashes", clock=later))
    kept = (context / "a").stat().st_mtime_ns
    (context / "a").write_text("A")
    os.utime(context / "a", ns=(kept, kept))  # size and mtime say nothing, ctime does
    after = snapshot(context, cache=HashCache(tmp_path / "hashes", clock=later))
    assert after.digest != before.digest
    assert readings == ["a", "b", "a"]


def test_a_file_put_in_place_of_another_is_read(context: Path, tmp_path: Path, readings: list[str]) -> None:
    snapshot(context, cache=HashCache(tmp_path / "hashes", clock=later))
    (context / "new").write_text("A")
    (context / "new").replace(context / "a")
    assert snapshot(context, cache=HashCache(tmp_path / "hashes", clock=later)) == snapshot(context)
    assert readings == ["a", "b", "a"]


def test_the_hash_of_a_young_file_is_not_trusted(context: Path, tmp_path: Path, readings: list[str]) -> None:
    for _ in range(2):
        snapshot(context, cache=HashCache(tmp_path / "hashes"))
    assert readings == ["a", "b", "a", "b"]


def test_the_hash_of_a_file_from_the_future_is_not_trusted(
    context: Path, tmp_path: Path, readings: list[str]
) -> None:
    ahead = time.time_ns() + 10 * LATER
    os.utime(context / "a", ns=(ahead, ahead))
    for _ in range(2):
        snapshot(context, cache=HashCache(tmp_path / "hashes", clock=later))
    assert readings == ["a", "b", "a"]


def test_files_that_are_gone_are_forgotten(context: Path, tmp_path: Path) -> None:
    snapshot(context, cache=HashCache(tmp_path / "hashes", clock=later))
    size = (tmp_path / "hashes").stat().st_size
    (context / "a").unlink()
    snapshot(context, cache=HashCache(tmp_path / "hashes", clock=later))
    assert (tmp_path / "hashes").stat().st_size < size


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "other", "directory"])
def test_a_damaged_cache_is_an_empty_one(
    context: Path, tmp_path: Path, readings: list[str], damage: str
) -> None:
    file = tmp_path / "hashes"
    expected = snapshot(context, cache=HashCache(file, clock=later))
    content = file.read_bytes()
    file.unlink()
    if damage == "directory":
        file.mkdir()
    else:
        flipped = content[:-1] + bytes([content[-1] ^ 1])
        file.write_bytes({"cut": content[:-5], "bit": flipped, "empty": b"", "other": b"{}"}[damage])
    assert snapshot(context, cache=HashCache(file, clock=later)) == expected
    assert readings == ["a", "b", "a", "b"]


def test_a_cache_that_cannot_be_written_does_no_harm(context: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert snapshot(context, cache=HashCache(tmp_path / "file/hashes", clock=later)) == snapshot(context)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "context", tmp_path / "file"]


def test_names_of_any_bytes_are_cached(tmp_path: Path, readings: list[str]) -> None:
    context = tmp_path / "context"
    context.mkdir()
    for name in (b"new\nline", b"\xff", b"\xc3\xa9"):
        (context / os.fsdecode(name)).write_bytes(name)
    first = snapshot(context, cache=HashCache(tmp_path / "hashes", clock=later))
    assert snapshot(context, cache=HashCache(tmp_path / "hashes", clock=later)) == first
    assert len(readings) == 3
