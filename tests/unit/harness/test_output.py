from __future__ import annotations

import os
from pathlib import Path

import pytest

from determined._contract.run_info import CUT_MARK
from determined.exec._process import CappedFile, Mirror


def write(path: Path, pieces: list[bytes], *, limit: int) -> CappedFile:
    file = CappedFile(path, limit)
    for piece in pieces:
        file.write(piece)
    file.close()
    return file


def test_below_the_limit_every_byte_is_kept(tmp_path: Path) -> None:
    pieces = [b"\xff\xfe\x00", b"50%\r100%\r", b"x" * 40_000, b"no newline"]
    write(tmp_path / "log", pieces, limit=1 << 20)
    assert (tmp_path / "log").read_bytes() == b"".join(pieces)


@pytest.mark.parametrize("piece", [1, 700, 100_000])
def test_above_it_head_and_newest_tail_stay_and_the_mark_says_what_is_gone(
    tmp_path: Path, piece: int
) -> None:
    text = b"".join(b"%07d\n" % number for number in range(10_000))
    pieces = [text[start : start + piece] for start in range(0, len(text), piece)]
    write(tmp_path / "log", pieces, limit=8192)
    kept = (tmp_path / "log").read_bytes()
    assert len(kept) <= 8192
    head, gone, tail = CUT_MARK.split(kept)
    assert text.startswith(head)
    assert text.endswith(tail)
    assert len(head) == 2048 <= len(tail)
    assert len(head) + int(gone) + len(tail) == len(text)
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_a_full_disk_loses_output_and_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = CappedFile(tmp_path / "log", 8192)
    file.write(b"before")
    with monkeypatch.context() as disk:
        disk.setattr(os, "write", no_space)
        file.write(b"lost")
    file.write(b" after")
    file.close()
    mark = b"\n[detbuild: 4 bytes of output are lost: the disk was full]\n"
    assert ((tmp_path / "log").read_bytes(), file.disk_full) == (b"before after" + mark, True)


def no_space(fd: int, data: bytes) -> int:
    raise OSError(28, "No space left on device")


def test_a_mirror_whose_reader_is_away_takes_everything_at_once() -> None:
    reader, writer = os.pipe()
    mirror = Mirror(writer)
    for _ in range(1000):
        mirror.write(b"x" * 65536)  # a pipe holds 64 KiB: this would wait forever
    mirror.close(0.05)
    os.close(reader)


def test_a_mirror_copies_in_order() -> None:
    reader, writer = os.pipe()
    mirror = Mirror(writer)
    for piece in (b"\xff\x00", b"\r", b"end"):
        mirror.write(piece)
    mirror.close(5)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert pipe.read() == b"\xff\x00\rend"
