from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detbuild.store import journal
from detbuild.store import logs as log_module
from detbuild.store.experiment_dir import RunFolder
from detbuild.store.logs import Level, LogFile, LogFilter, TrialLines, last_text, some, tail
from detbuild.store.state import load
from determined._contract.run_info import CUT_MARK
from determined.exec._process import CappedFile
from tests.experiments import write_experiment


@pytest.fixture
def folder(tmp_path):
    return write_experiment(tmp_path / "home")


def messages(folder, **wanted):
    lines = TrialLines(folder, LogFilter(**wanted)).new(load(folder).trials[1])
    return [line.message for line in lines]


def test_all_lines_come_stdout_first(folder):
    assert messages(folder) == [
        "INFO: begun",
        "[rank=1] WARNING: slow",
        "[rank=1] because",
        "ERROR: broken",
        "  at line 3",
    ]


def test_a_line_without_a_level_has_that_of_the_one_before_it(folder):
    assert messages(folder, min_level=Level.ERROR) == ["ERROR: broken", "  at line 3"]
    assert messages(folder, min_level=Level.WARNING)[:2] == ["[rank=1] WARNING: slow", "[rank=1] because"]


def test_lines_are_chosen_by_rank_stream_and_container(folder):
    assert messages(folder, ranks=(1,)) == ["[rank=1] WARNING: slow", "[rank=1] because"]
    assert messages(folder, ranks=(0,)) == ["INFO: begun", "ERROR: broken", "  at line 3"]
    assert messages(folder, stdtypes=("stderr",)) == ["ERROR: broken", "  at line 3"]
    assert len(messages(folder, containers=("c1ff",))) == 5
    assert messages(folder, containers=("other",)) == []


def test_a_time_chooses_whole_runs(folder):
    run = load(folder).trials[1].runs[0]
    assert messages(folder, before=run.started) == []
    assert len(messages(folder, before=run.started + 1)) == 5
    assert messages(folder, after=run.ended) == []
    assert len(messages(folder, after=run.ended - 1)) == 5


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("DEBUG: [12] root: x", Level.DEBUG),
        ("[rank=3] CRITICAL: x", Level.CRITICAL),
        ("[2026-01-01 10:00:00] WARN x", Level.WARNING),
        ("FATAL: x", Level.CRITICAL),
        ("Information is no level", Level.INFO),
        ("ERRORS are no level", Level.INFO),
        ("nothing", Level.INFO),
    ],
)
def test_the_level_is_the_word_that_a_line_begins_with(folder, text, level):
    folder.run(1, 0).output("stdout").write_text(f"{text}\n")
    (line,) = TrialLines(folder, LogFilter(stdtypes=("stdout",))).new(load(folder).trials[1])
    assert line.level is level


def test_a_second_look_gives_what_came_since_and_a_torn_line_only_when_the_run_is_over(tmp_path):
    folder = write_experiment(tmp_path / "home", state=None)
    file = folder.run(1, 0).output("stdout")
    file.write_bytes(b"one\ntw")
    lines = TrialLines(folder, LogFilter(stdtypes=("stdout",)))
    assert [line.message for line in lines.new(load(folder).trials[1])] == ["one"]
    file.write_bytes(b"one\ntwo\nthr")
    assert [line.message for line in lines.new(load(folder).trials[1])] == ["two"]
    folder.record(journal.RunFinished(trial_id=1, run=0, outcome="completed"))
    assert [line.message for line in lines.new(load(folder).trials[1])] == ["thr"]


def test_the_first_or_the_last_lines_may_be_asked_for(folder):
    def some_of(**which):
        lines = TrialLines(folder, LogFilter()).new(load(folder).trials[1])
        return [line.message for line in some(lines, which.get("head"), which.get("tail"))]

    assert some_of(head=1) == ["INFO: begun"]
    assert some_of(tail=1) == ["  at line 3"]
    assert len(some_of()) == 5


LIMIT = 4096


def text(lines: int) -> bytes:
    return b"".join(b"%07d\n" % number for number in range(lines))


@given(pieces=st.lists(st.integers(1, 200), max_size=60))
def test_whoever_looks_often_enough_gets_every_byte_however_often_the_log_is_cut(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[int]
) -> None:
    folder = RunFolder(tmp_path_factory.mktemp("log"))
    log, seen, written = CappedFile(folder.output("stdout"), LIMIT), b"", b""
    reader = LogFile(folder, "stdout", limit=LIMIT)
    for lines in pieces:
        piece = text(lines)[:1000]
        log.write(piece)
        written += piece
        seen += b"".join(reader.blocks())
    log.close()
    assert seen == written


def test_whoever_looks_too_late_is_told_how_much_is_left_out(tmp_path: Path) -> None:
    log = CappedFile(tmp_path / "stdout.log", LIMIT)
    reader = LogFile(RunFolder(tmp_path), "stdout", limit=LIMIT)
    log.write(text(10))
    early = b"".join(reader.blocks())
    log.write(text(5000))
    late = b"".join(reader.blocks())
    log.close()
    head, gone, tail = CUT_MARK.split(early + late)
    whole = text(10) + text(5000)
    assert whole == head + whole[len(head) : len(head) + int(gone)] + tail


def test_output_after_a_cut_for_want_of_room_is_read(tmp_path: Path) -> None:
    path = tmp_path / "stdout.log"
    path.write_bytes(text(500))
    reader = LogFile(RunFolder(tmp_path), "stdout", limit=LIMIT)
    assert b"".join(reader.blocks()) == text(500)
    path.write_bytes(text(500)[: LIMIT // 4] + b"more\n")
    assert b"".join(reader.blocks()) == b"more\n"


def test_lines_come_whole(tmp_path: Path) -> None:
    path = tmp_path / "stdout.log"
    assert list(LogFile(RunFolder(tmp_path), "stdout").lines()) == []
    path.write_bytes(b"a\r\nb\rc\n\n" + b"x" * (3 << 20) + b"\nend")
    assert list(LogFile(RunFolder(tmp_path), "stdout").lines()) == [
        b"a\r\n",
        b"b\rc\n",
        b"\n",
        b"x" * (3 << 20) + b"\n",
        b"end",
    ]


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link(path: Path) -> None:
    path.symlink_to(path.parent.parent / "secret")


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        here = Path.cwd()
        os.chdir(path.parent)
        try:
            one.bind(path.name)
        finally:
            os.chdir(here)


REPLACED = {
    "is a symbolic link": link,
    "is not a regular file: a named pipe": pipe,
    "is not a regular file: a directory": Path.mkdir,
    "is not a regular file: a socket": a_socket,
    "is larger than 128 MiB": sparse,
}


@pytest.mark.parametrize("why", REPLACED)
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_one_line_says_what_a_run_has_put_where_its_log_was(tmp_path: Path, why: str, stream: str) -> None:
    (tmp_path / "secret").write_text("a file of the host")
    folder = RunFolder(tmp_path / "runs" / "1-0")
    folder.path.mkdir(parents=True)
    (tmp_path / "runs" / "secret").write_text("a file of the host")
    REPLACED[why](folder.output(stream))
    line = f"[detbuild: {stream}.log {why}; skipped]\n"
    reader = LogFile(folder, stream)
    assert list(reader.blocks()) == [line.encode()]
    assert list(reader.blocks()) == []
    assert list(LogFile(folder, stream).lines()) == [line.encode()]
    assert last_text(folder, stream, 1000) == (line, False)
    assert tail(folder) == (line.rstrip(),)


def test_a_log_that_becomes_a_link_while_it_is_followed_is_left_at_that(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "1-0")
    folder.path.mkdir(parents=True)
    (tmp_path / "runs" / "secret").write_text("a file of the host, and a long one " * 100)
    folder.output("stdout").write_text("before\n")
    reader = LogFile(folder, "stdout")
    assert b"".join(reader.blocks()) == b"before\n"
    folder.output("stdout").unlink()
    link(folder.output("stdout"))
    assert b"".join(reader.blocks()) == b"[detbuild: stdout.log is a symbolic link; skipped]\n"
    folder.output("stdout").unlink()
    folder.output("stdout").write_text("before\nafter\n")
    assert b"".join(reader.blocks()) == b"after\n"


@pytest.mark.parametrize("swapped", ["runs", "runs/1-0"])
def test_a_directory_above_a_log_may_be_no_link_either(tmp_path: Path, swapped: str) -> None:
    folder = RunFolder(tmp_path / "experiment" / "runs" / "1-0")
    folder.path.mkdir(parents=True)
    folder.output("stdout").write_text("of the host")
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "experiment" / swapped).rename(elsewhere)
    (tmp_path / "experiment" / swapped).symlink_to(elsewhere)
    assert not folder.exists
    assert b"of the host" not in b"".join(LogFile(folder, "stdout").blocks())


def test_a_log_that_grows_while_it_is_read_ends_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "LARGEST_LOG", 10)
    monkeypatch.setattr(log_module, "_BLOCK", 5)
    folder = RunFolder(tmp_path)
    path = folder.output("stdout")
    path.write_bytes(b"12345")
    seen = []
    for block in LogFile(folder, "stdout").blocks():
        seen.append(block)
        with path.open("ab") as file:
            file.write(b"67890")
    assert seen == [b"12345", b"67890"]
