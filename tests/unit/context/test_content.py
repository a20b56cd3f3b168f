from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from detbuild.context import content
from detbuild.context.content import hash_file, open_entry
from detbuild.context.snapshot import Entry
from detbuild.context.walk import snapshot
from detbuild.errors import ContextError

if TYPE_CHECKING:
    from pathlib import Path

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
    monkeypatch.setattr(content.os, "read", Writer(path, times=2))
    digest, seen = hash_file(os.fsencode(path))
    monkeypatch.undo()
    assert (digest, seen.st_size) == (hash_file(os.fsencode(path))[0], 13)


def test_a_file_that_never_rests_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "train.log"
    path.write_bytes(b"12345")
    (tmp_path / "still").write_bytes(b"")
    monkeypatch.setattr(content.os, "read", Writer(path, times=99))
    with pytest.raises(ContextError) as caught:
        snapshot(tmp_path)
    assert str(caught.value).splitlines()[1:] == ["  train.log: it changes while it is read"]
    assert "stop the process that writes to it" in caught.value.hint
