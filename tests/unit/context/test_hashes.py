from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from detbuild.context import hashes
from detbuild.context.hashes import HashCache
from detbuild.context.walk import snapshot

LATER = 10_000_000_000


def later() -> int:
    """A clock by which the files of the test are no longer young."""
    return time.time_ns() + LATER


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are really read."""
    names: list[str] = []
    hash_file = hashes.hash_file

    def noted(source: bytes, count: object = None) -> tuple[str, os.stat_result]:
        names.append(Path(os.fsdecode(source)).name)
        return hash_file(source, count)

    monkeypatch.setattr(hashes, "hash_file", noted)
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
