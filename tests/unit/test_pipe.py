from __future__ import annotations

import fcntl
import os
import resource
import sys
from typing import TYPE_CHECKING

import pytest

from detbuild.pipe import Child, LineReader

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def ends() -> Iterator[tuple[LineReader, int]]:
    read, write = os.pipe()
    with os.fdopen(read, "rb") as pipe:
        yield LineReader(pipe), write


def test_lines_come_whole_then_the_end(ends: tuple[LineReader, int]) -> None:
    reader, write = ends
    assert reader.line(0) is None
    os.write(write, b"one\n\ntw")
    assert reader.line(0) == b"one\n"
    assert reader.line(0) == b"\n"
    assert reader.line(0.001) is None
    os.write(write, b"o\nnot ended")
    os.close(write)
    assert reader.line(60) == b"two\n"
    assert reader.line(60) == b""
    assert reader.line(0) == b""


def test_a_process_with_thousands_of_open_files_can_read() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft <= 2000:
        if hard <= 2000:
            pytest.skip(f"at most {hard} open files are allowed here")
        resource.setrlimit(resource.RLIMIT_NOFILE, (2001, hard))
    read, write_high = os.pipe()
    high = fcntl.fcntl(read, fcntl.F_DUPFD_CLOEXEC, 1500)
    os.close(read)
    os.write(write_high, b"read\n")
    os.close(write_high)
    try:
        with os.fdopen(high, "rb") as pipe:
            assert LineReader(pipe).line(60) == b"read\n"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


ECHO = "import sys\nfor line in sys.stdin: print(line, end='', flush=True)"


@pytest.fixture
def echo() -> Iterator[Child]:
    child = Child([sys.executable, "-c", ECHO])
    yield child
    child.close()


def test_a_child_answers_objects_with_objects(echo: Child) -> None:
    echo.send({"a": (1, 2)})
    echo.send({})
    assert [echo.answer(60), echo.answer(60), echo.answer(0.01)] == [{"a": [1, 2]}, {}, None]


def test_the_end_of_a_child_is_told_apart_from_silence(echo: Child) -> None:
    echo.process.kill()
    with pytest.raises(EOFError):
        echo.answer(60)
    echo.send({"lost": True})


def test_a_child_is_closed_once_or_twice(echo: Child) -> None:
    echo.close()
    echo.close()
    assert echo.process.returncode is not None
