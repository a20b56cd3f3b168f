from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detbuild.store.log import LogFile
from determined.exec._output import MARK, CappedFile

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 4096


def text(lines: int) -> bytes:
    return b"".join(b"%07d\n" % number for number in range(lines))


@given(pieces=st.lists(st.integers(1, 200), max_size=60))
def test_whoever_looks_often_enough_gets_every_byte_however_often_the_log_is_cut(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[int]
) -> None:
    path = tmp_path_factory.mktemp("log") / "stdout.log"
    log, seen, written = CappedFile(path, LIMIT), b"", b""
    reader = LogFile(path, limit=LIMIT)
    for lines in pieces:
        piece = text(lines)[:1000]
        log.write(piece)
        written += piece
        seen += b"".join(reader.blocks())
    log.close()
    assert seen == written


def test_whoever_looks_too_late_is_told_how_much_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "stdout.log"
    log = CappedFile(path, LIMIT)
    reader = LogFile(path, limit=LIMIT)
    log.write(text(10))
    early = b"".join(reader.blocks())
    log.write(text(5000))
    late = b"".join(reader.blocks())
    log.close()
    head, gone, tail = MARK.split(early + late)
    whole = text(10) + text(5000)
    assert whole == head + whole[len(head) : len(head) + int(gone)] + tail


def test_output_after_a_cut_for_want_of_room_is_read(tmp_path: Path) -> None:
    path = tmp_path / "stdout.log"
    path.write_bytes(text(500))
    reader = LogFile(path, limit=LIMIT)
    assert b"".join(reader.blocks()) == text(500)
    path.write_bytes(text(500)[: LIMIT // 4] + b"more\n")
    assert b"".join(reader.blocks()) == b"more\n"


def test_lines_come_whole(tmp_path: Path) -> None:
    path = tmp_path / "stdout.log"
    assert list(LogFile(path).lines()) == []
    path.write_bytes(b"a\r\nb\rc\n\n" + b"x" * (3 << 20) + b"\nend")
    assert list(LogFile(path).lines()) == [b"a\r\n", b"b\rc\n", b"\n", b"x" * (3 << 20) + b"\n", b"end"]
