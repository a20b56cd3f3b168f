from __future__ import annotations

import json
import math
import os
import tracemalloc
from itertools import pairwise
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detbuild.store import records as store_records
from detbuild.store.experiment_dir import RunFolder
from detbuild.store.records import RecordFile, RecordParser, RejectedSpan
from determined._contract.records import (
    Checkpoint,
    Line,
    Measured,
    Progress,
    Record,
    Started,
    Training,
    Validation,
    encode,
)

if TYPE_CHECKING:
    from pathlib import Path

RUN = "1-0"


def line(seq: int, *, run: str = RUN, record: Record | None = None) -> Line:
    return Line(seq, run, 0.5, record or Training(seq, {"loss": seq / 3}))


def lines(count: int) -> list[Line]:
    return [line(seq) for seq in range(1, count + 1)]


def data(*parts: Line | bytes) -> bytes:
    return b"".join(part if isinstance(part, bytes) else encode(part) for part in parts)


def parse(*pieces: bytes) -> tuple[list[Line], RecordParser]:
    parser = RecordParser(RUN)
    found = [one for piece in pieces for one in parser.feed(piece)]
    return [*found, *parser.finish()], parser


def cut(whole: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(whole), *(place % (len(whole) + 1) for place in places)})
    return [whole[a:b] for a, b in pairwise(edges)]


@given(places=st.lists(st.integers(0, 10_000)))
def test_bytes_cut_anywhere_give_the_same_records(places: list[int]) -> None:
    whole = data(*lines(5))
    assert parse(*cut(whole, places))[0] == lines(5)


@given(
    garbage=st.lists(st.binary(max_size=50), min_size=6, max_size=6), places=st.lists(st.integers(0, 10_000))
)
def test_garbage_between_records_is_rejected_and_nothing_else_is_lost(
    garbage: list[bytes], places: list[int]
) -> None:
    clean = [bytes(piece).replace(b"\n", b" ") + b"\n" for piece in garbage]
    mixed = [part for pair in zip(clean, [*lines(5), b""], strict=True) for part in pair]
    found, parser = parse(*cut(data(*mixed), places))
    assert found == lines(5)
    assert parser.rejected == sum(bool(piece.strip()) for piece in clean)
    assert parser.offset == len(data(*mixed))


@given(noise=st.binary(max_size=400))
def test_no_bytes_at_all_stop_the_reader(noise: bytes) -> None:
    found, parser = parse(noise, b"\n", data(line(1)))
    assert found[-1:] == [line(1)]
    assert all(aside.size <= len(noise) for aside in parser.rejected_spans)


@given(end=st.integers(0, 2000))
def test_a_prefix_of_a_file_gives_a_prefix_of_its_records(end: int) -> None:
    whole = data(*lines(5))
    found, _ = parse(whole[: min(end, len(whole))])
    assert found == lines(5)[: len(found)]


def test_a_torn_tail_waits_for_its_end_and_is_rejected_when_there_is_none() -> None:
    torn = encode(line(2))[:20]
    parser = RecordParser(RUN)
    assert list(parser.feed(data(line(1)) + torn)) == [line(1)]
    assert parser.rejected == 0
    assert list(parser.finish()) == []
    assert [(aside.offset, aside.size) for aside in parser.rejected_spans] == [
        (len(data(line(1))), len(torn))
    ]


def test_a_whole_record_without_its_newline_counts_when_the_run_is_over() -> None:
    assert parse(encode(line(1)).rstrip(b"\n"))[0] == [line(1)]


def test_records_of_another_run_are_rejected_by_offset() -> None:
    foreign = line(1, run="9-9")
    found, parser = parse(data(line(1), foreign, line(2)))
    assert found == [line(1), line(2)]
    start = len(data(line(1)))
    size = len(data(foreign)) - 1
    assert parser.rejected_spans == [RejectedSpan(start, size, "a record of run '9-9'")]


def test_a_number_that_came_before_is_not_counted_twice() -> None:
    found, parser = parse(data(line(1), line(2), line(1), line(2), line(3)))
    assert found == lines(3)
    assert parser.rejected == 2


def test_a_gap_is_counted_and_what_follows_is_kept() -> None:
    found, parser = parse(data(line(1), line(5)))
    assert [one.seq for one in found] == [1, 5]
    assert parser.sequence.missing == 3


def test_a_forged_huge_number_costs_no_true_record() -> None:
    forged = line(10**12, record=Progress(0.5))
    found, _ = parse(data(line(1), forged, line(2), line(3), line(2)))
    assert [one.seq for one in found] == [1, 10**12, 2, 3]


def test_a_line_of_100_megabytes_is_rejected_in_bounded_memory() -> None:
    block = b"x" * (1 << 20)
    parser = RecordParser(RUN)
    tracemalloc.start()
    found = list(parser.feed(data(line(1))))
    for _ in range(100):
        found += parser.feed(block)
    found += parser.feed(b"\n" + data(line(2)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == lines(2)
    assert [(aside.offset, aside.size) for aside in parser.rejected_spans] == [
        (len(data(line(1))), 100 << 20)
    ]
    assert peak < 3 * store_records.LONGEST_LINE


def test_a_file_that_grows_is_read_from_where_the_last_look_ended(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / RUN)
    path = folder.events
    file = RecordFile(folder)
    assert list(file.new()) == []
    folder.path.mkdir()
    path.write_bytes(data(line(1)) + encode(line(2))[:7])
    assert list(file.new()) == [line(1)]
    path.write_bytes(data(*lines(3)))
    assert list(file.new()) == [line(2), line(3)]
    assert list(file.rest()) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "training", "steps_completed": "ten", "metrics": {}},
        {"kind": "training", "steps_completed": True, "metrics": {}},
        {"kind": "training", "steps_completed": -1, "metrics": {}},
        {"kind": "training", "steps_completed": 10**400, "metrics": {}},
        {"kind": "training", "steps_completed": 1, "metrics": [1]},
        {"kind": "training", "steps_completed": 1, "metrics": {}, "time": 1e999},
        {"kind": "training", "steps_completed": 1, "metrics": {}, "time": math.nan},
        {"kind": "checkpoint", "uuid": "u", "steps_completed": 1, "resources": {"a": "large"}},
        {"kind": "metrics", "group": None, "steps_completed": 1, "metrics": {}},
        {"kind": "exited", "code": "0"},
        {"kind": "progress", "fraction": {}},
        {"kind": "ended", "reason": 7},
    ],
)
def test_a_forged_field_is_rejected_and_its_number_stays_free(fields) -> None:
    forged = json.dumps({"seq": 2, "run": RUN, "time": 0.5, **fields}).encode() + b"\n"
    found, parser = parse(data(line(1)) + forged + data(line(2)))
    assert found == lines(2)
    assert parser.rejected == 1


def unknown(kind: str, *, run: str = RUN) -> bytes:
    return json.dumps({"seq": 2, "run": run, "time": 0.5, "kind": kind, "new": [1]}).encode() + b"\n"


def test_records_of_unknown_kinds_are_skipped_and_named() -> None:
    newer = unknown("profile") + unknown("energy") + unknown("profile")
    found, parser = parse(data(line(1)) + newer + data(line(2)))
    assert found == lines(2)
    assert parser.unknown_kinds == ["profile", "energy"]
    assert parser.rejected == 0


def test_few_of_many_unknown_kinds_are_named_and_only_those_of_the_run() -> None:
    _, parser = parse(unknown("x" * 99), *(unknown(f"kind {number}") for number in range(1000)))
    assert [len(kind) for kind in parser.unknown_kinds] == [40, 6, 6, 6, 6]
    _, parser = parse(unknown("profile", run="9-9"))
    assert (parser.unknown_kinds, parser.rejected) == ([], 1)


def bounded(folder: RunFolder, content: bytes, **bounds: int) -> tuple[list[Line], RecordFile]:
    folder.path.mkdir(exist_ok=True)
    folder.events.write_bytes(content)
    file = RecordFile(folder, store_records.Bounds(**bounds))
    return list(file.rest()), file


@pytest.mark.parametrize(
    ("content", "bounds", "why"),
    [
        (b"x\n" * 1000, {"rejected": 100}, "100 lines that are not records"),
        (b"\n" * 1000, {"rejected": 100}, "100 lines that are not records"),
        ((b"0" * 1000 + b"\n") * 10, {"rejected_size": 2048}, "2 KiB that are not records"),
        (data(*lines(20)), {"size": 1024}, "1 KiB"),
        (
            b"".join(encode(Line(n, RUN, 0.5, Validation(n, {"loss": 0.5}))) for n in range(1, 50)),
            {"held_size": 2048},
            "2 KiB of validations and checkpoints",
        ),
    ],
)
def test_a_file_without_end_is_read_up_to_a_bound_and_the_rest_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, bounds: dict[str, int], why: str
) -> None:
    monkeypatch.setattr(store_records, "_BLOCK", 256)
    folder = RunFolder(tmp_path / RUN)
    found, file = bounded(folder, content, **bounds)
    assert file.unreadable == f"{folder.events} holds more than {why}; the rest is ignored"
    assert file.parser.offset < len(content)
    assert file.parser.rejected >= 1
    assert len(found) < 50
    with folder.events.open("ab") as more:
        more.write(data(line(99)))
    assert list(file.new()) == []


def test_the_bounds_leave_a_true_run_alone(tmp_path: Path) -> None:
    found, file = bounded(RunFolder(tmp_path / RUN), data(*lines(1000)))
    assert (found, file.unreadable) == (lines(1000), "")


@pytest.mark.parametrize("kind", ["a named pipe", "a directory", "a symbolic link"])
def test_events_that_are_no_file_are_named_and_never_waited_for(tmp_path: Path, kind: str) -> None:
    folder = RunFolder(tmp_path / RUN)
    folder.path.mkdir()
    (tmp_path / "true").write_bytes(data(*lines(3)))
    if kind == "a named pipe":
        os.mkfifo(folder.events)
    elif kind == "a directory":
        folder.events.mkdir()
    else:
        folder.events.symlink_to(tmp_path / "true")
    file = RecordFile(folder)
    assert list(file.rest()) == []
    assert file.unreadable.startswith(str(folder.events))
    assert file.unreadable.endswith(kind)


def test_a_sparse_file_of_a_terabyte_is_given_up_soon(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / RUN)
    folder.path.mkdir()
    with folder.events.open("wb") as huge:
        huge.write(data(line(1)))
        huge.truncate(1 << 40)
    file = RecordFile(folder)
    assert list(file.rest()) == lines(1)
    assert "256 MiB that are not records" in file.unreadable
    assert file.parser.offset < 1 << 30


def test_one_look_reads_about_as_much_as_it_is_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_records, "_BLOCK", 256)
    folder = RunFolder(tmp_path / RUN)
    folder.path.mkdir()
    folder.events.write_bytes(data(*lines(100)))
    file = RecordFile(folder)
    first = list(file.new(512))
    assert 0 < len(first) < 100
    assert first + list(file.new()) == lines(100)


def told(*records: Record) -> list[Record]:
    whole = data(*(line(seq, record=record) for seq, record in enumerate(records, start=1)))
    return [one.record for one in parse(whole)[0]]


START = Started(1, "3.11", "0")


def reports(first: int, last: int) -> list[Record]:
    """As a trial makes them: a validation each second batch."""
    found: list[Record] = []
    for batch in range(first, last + 1):
        found.append(Training(batch, {"loss": 1.0}))
        if batch % 2 == 0:
            found.append(Validation(batch, {"accuracy": 1.0}))
    return found


@given(reached=st.integers(0, 12), again=st.integers(0, 12))
def test_what_a_later_start_repeats_is_left_out_and_nothing_else(reached: int, again: int) -> None:
    """Of a run whose container was started twice, by a version that let it train again."""
    whole = reports(1, 12)
    first, second = reports(1, reached), reports(1, again)
    assert told(START, *first, START, *second, START, *whole) == [START, *whole]


def test_a_validation_that_the_first_start_did_not_come_to_is_kept() -> None:
    validation = Validation(4, {"accuracy": 1.0})
    whole = [*reports(1, 3), Training(4, {"loss": 1.0})]
    assert told(START, *whole, START, *whole, validation) == [START, *whole, validation]


def test_a_forged_start_costs_no_true_record() -> None:
    whole = [*reports(1, 4), Checkpoint(str(UUID(int=1)), 4, {}), *reports(5, 9), Measured("test", 9, {})]
    assert told(START, *whole[:5], START, *whole[5:]) == [START, *whole]


def test_a_script_that_reports_a_batch_twice_is_taken_at_its_word() -> None:
    twice = [*reports(1, 4), *reports(2, 4)]
    assert told(START, *twice) == [START, *twice]
