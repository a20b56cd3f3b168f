from __future__ import annotations

import errno
import gc
import os
import time
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from determined._contract.errors import StorageError
from determined._contract.records import (
    Ended,
    ExitReason,
    Line,
    Progress,
    Record,
    Stage,
    StageEntered,
    Training,
    decode,
    encode,
)
from determined._run.events import EventFile


def append(path: Path, *records: Record, run: str = "1-0") -> None:
    with closing(EventFile(path, run)) as events:
        for record in records:
            events.append(record)


def records(path: Path) -> list[tuple[int, Record]]:
    """What a reader sees that sets aside everything else."""
    found = []
    for text in path.read_bytes().split(b"\n"):
        try:
            line = decode(text)
        except ValueError:
            continue
        found.append((line.seq, line.record))
    return found


def test_a_new_file_counts_from_one(tmp_path: Path) -> None:
    append(tmp_path / "e", Progress(0.0), Progress(1.0))
    assert records(tmp_path / "e") == [(1, Progress(0.0)), (2, Progress(1.0))]


def test_the_next_writer_counts_on_and_knows_the_last_record(tmp_path: Path) -> None:
    append(tmp_path / "e", Progress(0.5), Ended(ExitReason.COMPLETED))
    with closing(EventFile(tmp_path / "e", "1-0")) as events:
        assert events.last == Ended(ExitReason.COMPLETED)
        events.append(Progress(1.0))
    assert [seq for seq, _ in records(tmp_path / "e")] == [1, 2, 3]


def test_a_record_is_in_the_file_before_the_writer_closes_it(tmp_path: Path) -> None:
    with closing(EventFile(tmp_path / "e", "1-0")) as events:
        events.append(Progress(0.5))
        assert records(tmp_path / "e") == [(1, Progress(0.5))]


def test_training_metrics_that_come_fast_wait_for_a_record_that_matters(tmp_path: Path) -> None:
    with closing(EventFile(tmp_path / "e", "1-0")) as events:
        for step in (1, 2, 3):
            events.append(Training(step, {}))
        assert records(tmp_path / "e") == [(1, Training(1, {}))]
        events.append(StageEntered(Stage.VALIDATE))
        assert [seq for seq, _ in records(tmp_path / "e")] == [1, 2, 3, 4]
        events.append(Training(4, {}))
    assert [seq for seq, _ in records(tmp_path / "e")] == [1, 2, 3, 4, 5]


def test_training_metrics_that_come_slowly_are_written_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(EventFile(tmp_path / "e", "1-0")) as events:
        for second in range(3):
            monkeypatch.setattr("time.time", lambda now=1000.0 + second: now)
            events.append(Training(second, {}))
            assert len(records(tmp_path / "e")) == second + 1


def test_a_full_disk_keeps_what_waits_for_another_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with closing(EventFile(tmp_path / "e", "1-0")) as events:
        events.append(Training(1, {}))
        events.append(Training(2, {}))
        with monkeypatch.context() as disk:
            disk.setattr(os, "write", full)
            with pytest.raises(StorageError):
                events.append(StageEntered(Stage.TRAIN))
        events.append(StageEntered(Stage.CHECKPOINT))
    found = records(tmp_path / "e")
    assert [seq for seq, _ in found] == [1, 2, 3]
    assert found[-1][1] == StageEntered(Stage.CHECKPOINT)


def test_several_records_are_numbered_as_if_they_came_one_by_one(tmp_path: Path) -> None:
    with closing(EventFile(tmp_path / "e", "1-0")) as events:
        events.extend([Training(step, {}) for step in (1, 2, 3)])
        assert records(tmp_path / "e") == [(step, Training(step, {})) for step in (1, 2, 3)]
        assert events.last == Training(3, {})
        events.append(StageEntered(Stage.VALIDATE))
    assert [seq for seq, _ in records(tmp_path / "e")] == [1, 2, 3, 4]


def test_of_several_records_that_a_full_disk_refuses_none_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with closing(EventFile(tmp_path / "e", "1-0")) as events:
        with monkeypatch.context() as disk:
            disk.setattr(os, "write", full)
            with pytest.raises(StorageError):
                events.extend([Training(step, {}) for step in (1, 2)])
        events.append(Training(3, {}))
    assert records(tmp_path / "e") == [(1, Training(3, {}))]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(cut=st.integers(min_value=0, max_value=400), junk=st.binary(max_size=40))
def test_after_a_tear_anywhere_the_numbers_go_on_without_gap_or_repeat(
    tmp_path: Path, cut: int, junk: bytes
) -> None:
    path = tmp_path / "e"
    path.unlink(missing_ok=True)
    append(path, *(Progress(step / 10) for step in range(4)))
    path.write_bytes(path.read_bytes()[:cut] + junk)
    append(path, Progress(1.0))
    found = records(path)
    assert [seq for seq, _ in found] == list(range(1, len(found) + 1))
    assert found[-1][1] == Progress(1.0)


def test_records_of_another_run_and_lines_of_user_code_are_looked_over(tmp_path: Path) -> None:
    path = tmp_path / "e"
    append(path, Progress(0.5))
    with path.open("ab") as file:
        file.write(encode(Line(900, "9-9", 0.0, Progress(0.1))))
        file.write(b"\xff\xfe\x00 not a record\n" + b"x" * 200_000 + b"\n{}\nnull\n")
    append(path, Progress(1.0))
    assert [(seq, record) for seq, record in records(path) if seq != 900] == [
        (1, Progress(0.5)),
        (2, Progress(1.0)),
    ]


def test_a_whole_last_record_without_its_newline_counts(tmp_path: Path) -> None:
    path = tmp_path / "e"
    path.write_bytes(encode(Line(1, "1-0", 0.0, Progress(0.5))).rstrip(b"\n"))
    append(path, Progress(1.0))
    assert records(path) == [(1, Progress(0.5)), (2, Progress(1.0))]


def test_a_full_disk_leaves_the_file_as_it_was_and_the_record_may_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, write = tmp_path / "e", os.write
    append(path, Progress(0.5))
    before = path.read_bytes()

    def half_then_full(fd: int, data: bytes) -> int:
        if len(data) < 60:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, data[:20])

    with closing(EventFile(path, "1-0")) as events:
        with monkeypatch.context() as disk:
            disk.setattr(os, "write", half_then_full)
            with pytest.raises(StorageError, match=r"cannot write records under .*No space left"):
                events.append(Progress(0.6))
        assert path.read_bytes() == before
        events.append(Progress(0.7))
    assert records(path) == [(1, Progress(0.5)), (2, Progress(0.7))]


def test_a_missing_run_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file or directory"):
        EventFile(tmp_path / "gone" / "e", "1-0")


def test_what_waits_is_written_when_nothing_more_comes(tmp_path: Path) -> None:
    events = EventFile(tmp_path / "events.jsonl", "1-0")
    with closing(events):
        for batch in range(1, 4):
            events.append(Training(batch, {"loss": 0.5}))
        deadline = time.monotonic() + 10
        while (tmp_path / "events.jsonl").read_bytes().count(b"\n") < 3:
            assert time.monotonic() < deadline, "the last records never reached the file"
            time.sleep(0.01)


@pytest.mark.parametrize("kind", ["a named pipe", "a directory", "a link", "a link to nothing"])
def test_what_replaced_the_file_is_named_and_never_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "events.jsonl"
    (tmp_path / "other").write_bytes(b"another file")
    if kind == "a named pipe":
        os.mkfifo(path)
    elif kind == "a directory":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / ("none" if kind == "a link to nothing" else "other"))
    with pytest.raises(StorageError, match=r"events\.jsonl: it is not a regular file: \w"):
        EventFile(path, "1-0")
    assert (tmp_path / "other").read_bytes() == b"another file"
    assert not (tmp_path / "none").exists()


def test_a_file_said_to_be_huge_is_given_up_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    append(path, Progress(0.5))
    with path.open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(StorageError, match="ends with more than 64 MiB or 10000 lines that are not records"):
        EventFile(path, "1-0")


@pytest.mark.parametrize("garbage", [b"x\n" * 100_000, b"\n" * 100_000])
def test_lines_without_number_are_looked_back_over_up_to_a_bound(tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "events.jsonl"
    append(path, Progress(0.5))
    with path.open("ab") as file:
        file.write(garbage[:2000])
    append(path, Progress(0.6))
    assert [seq for seq, _ in records(path)] == [1, 2]
    with path.open("ab") as file:
        file.write(garbage)
    with pytest.raises(StorageError, match="not records"):
        EventFile(path, "1-0")


def test_a_file_that_is_dropped_without_being_closed_leaves_no_descriptor(tmp_path: Path) -> None:
    events = EventFile(tmp_path / "e", "1-0")
    events.append(Progress(0.5))
    descriptor = Path(f"/proc/self/fd/{events._fd}")
    assert descriptor.readlink() == tmp_path / "e"
    del events
    gc.collect()
    assert not descriptor.is_symlink() or descriptor.readlink() != tmp_path / "e"
