from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detbuild.errors import DiskFullError, EngineError
from detbuild.store import files, journal
from detbuild.store.journal import (
    Entry,
    ExperimentFinished,
    JournalFile,
    Paused,
    PolicyMatched,
    RequestApplied,
    RunCreated,
    RunFinished,
    RunIntended,
    Searched,
    SearchFailed,
    TrialCreated,
    TrialFinished,
    Waiting,
    append,
    decode,
    encode,
    replay,
)

if TYPE_CHECKING:
    from pathlib import Path

ALL = [
    Entry(1.0, TrialCreated(trial_id=1, seed=3, hparams={"lr": 0.1, "layers": {"sizes": [1, 2]}})),
    Entry(2.0, RunIntended(trial_id=1, run=0)),
    Entry(3.0, RunCreated(trial_id=1, run=0, container="abc", gpu_ids=("0", "1"))),
    Entry(4.0, Waiting(trial_id=1, why="the engine is away")),
    Entry(5.0, RequestApplied(number=1, verb="kill", trial_id=1)),
    Entry(5.1, RequestApplied(number=2, verb="continue", length={"unit": "batches", "count": 9})),
    Entry(5.2, Paused()),
    Entry(5.3, SearchFailed(why="the hook does not answer")),
    Entry(5.4, PolicyMatched(trial_id=1, run=0, name="CUDA OOM", cancels_retries=True)),
    Entry(
        5.5,
        Searched(
            event={"kind": "validated", "trial_id": 1, "time": 2.0, "metric": None},
            actions=({"kind": "create", "trial_id": 2, "hparams": {"sizes": [1]}}, {"kind": "finish"}),
            steps_completed=4,
            sources={"2": ["a", "b"]},
        ),
    ),
    Entry(
        6.0,
        RunFinished(
            trial_id=1, run=0, outcome="user_error", counts=True, retry=True, exit_code=1, tail=("a", "b")
        ),
    ),
    Entry(7.0, TrialFinished(trial_id=1, state="ERROR", why="it failed")),
    Entry(8.0, ExperimentFinished(state="ERROR", why="it failed")),
]


@pytest.mark.parametrize("entry", ALL, ids=lambda entry: entry.fact.kind)
def test_what_is_written_is_read_back(entry: Entry) -> None:
    assert decode(encode(entry)) == entry


def test_the_journal_comes_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    for entry in ALL:
        append(path, entry)
    assert replay(path) == tuple(ALL)


def test_a_journal_is_read_on_from_the_last_look(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    reader = JournalFile(path)
    seen = []
    for entry in ALL:
        append(path, entry)
        seen.append(list(reader.new()))
    assert seen == [[entry] for entry in ALL]
    with path.open("ab") as file:
        file.write(encode(ALL[0])[:-1])
    assert list(reader.new()) == []


def test_there_is_nothing_in_a_journal_that_was_not_begun(tmp_path: Path) -> None:
    assert replay(tmp_path / "journal.jsonl") == ()


@given(kept=st.integers(0, 1000))
def test_a_power_cut_loses_at_most_the_entry_that_was_being_written(
    tmp_path_factory: pytest.TempPathFactory, kept: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    whole = encode(ALL[0]) + encode(ALL[1])
    path.write_bytes(whole[: min(kept, len(whole))])
    survivors = replay(path)
    assert survivors == tuple(ALL[: len(survivors)])
    append(path, ALL[2])
    assert replay(path) == (*survivors, ALL[2])


def test_a_spoilt_line_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(encode(ALL[0]) + b"\xff\x00 no entry\n" + encode(ALL[1]))
    assert replay(path) == (ALL[0], ALL[1])


def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.jsonl"
    append(path, ALL[0])
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fdatasync", _no_room)
        with pytest.raises(DiskFullError, match="no free space to write"):
            append(path, ALL[1])
    assert replay(path) == (ALL[0],)
    append(path, ALL[2])
    assert replay(path) == (ALL[0], ALL[2])


def _no_room(descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def test_a_kind_of_a_later_version_is_no_entry() -> None:
    with pytest.raises(ValueError, match="not a journal entry"):
        journal.decode(b'{"kind": "from_the_future", "time": 1}\n')


def damage(path: Path) -> tuple[tuple[Entry, ...], list[str]]:
    file = JournalFile(path)
    found = tuple(file.new())
    return found, [place.removeprefix(f"{path}, ") for place in file.damage]


def written(path: Path, *, numbered: bool = True) -> list[bytes]:
    if numbered:
        for entry in ALL:
            append(path, entry)
    else:
        path.write_bytes(b"".join(map(encode, ALL)))
    return path.read_bytes().splitlines(keepends=True)


def test_a_whole_journal_has_no_damage(tmp_path: Path) -> None:
    written(tmp_path / "journal.jsonl")
    assert damage(tmp_path / "journal.jsonl") == (tuple(ALL), [])


def test_lines_of_before_there_were_numbers_are_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    written(path, numbered=False)
    append(path, ALL[0])
    append(path, ALL[1])
    assert damage(path) == ((*ALL, ALL[0], ALL[1]), [])
    assert [b'"n":14}' in line for line in path.read_bytes().splitlines()].count(True) == 1


@given(lost=st.sets(st.integers(0, len(ALL) - 2), min_size=1))
def test_missing_lines_are_noticed_wherever_they_were(
    tmp_path_factory: pytest.TempPathFactory, lost: set[int]
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    lines = written(path)
    path.write_bytes(b"".join(line for at, line in enumerate(lines) if at not in lost))
    found, told = damage(path)
    assert found == tuple(entry for at, entry in enumerate(ALL) if at not in lost)
    assert sum(int(place.split(": ")[1].split(" ")[0]) for place in told) == len(lost)
    assert all("missing before it" in place for place in told)


@given(at=st.integers(0, len(ALL) - 1), later=st.integers(0, len(ALL)))
def test_a_doubled_line_counts_once_and_is_told(
    tmp_path_factory: pytest.TempPathFactory, at: int, later: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    lines = written(path)
    place = min(at + 1 + later, len(lines))
    path.write_bytes(b"".join([*lines[:place], lines[at], *lines[place:]]))
    assert damage(path) == (tuple(ALL), [f"line {place + 1}: repeats number {at + 1}"])


@given(at=st.integers(0, len(ALL) - 1), garbage=st.binary(max_size=40).filter(lambda one: b"\n" not in one))
def test_a_line_that_became_garbage_is_told_with_its_place(
    tmp_path_factory: pytest.TempPathFactory, at: int, garbage: bytes
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    lines = written(path)
    path.write_bytes(b"".join([*lines[:at], garbage + b"\n", *lines[at + 1 :]]))
    found, told = damage(path)
    assert found == tuple(ALL[:at] + ALL[at + 1 :])
    assert [place.partition(": not")[0] for place in told] == [f"line {at + 1}"]
    append(path, ALL[0])  # what is written now is new, whatever is broken before it
    assert damage(path) == ((*found, ALL[0]), told)


def test_what_follows_torn_and_missing_lines_is_never_taken_for_a_copy(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    lines = written(path)
    path.write_bytes(b"".join([*lines[:5], *lines[7:10], b"garbage\n"]))
    append(path, ALL[10])
    found, told = damage(path)
    assert found == (*ALL[:5], *ALL[7:10], ALL[10])
    assert len(told) == 2


@pytest.mark.parametrize("kind", ["a named pipe", "a directory", "a symbolic link"])
def test_what_is_in_the_place_of_a_journal_is_named_and_never_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "journal.jsonl"
    if kind == "a named pipe":
        os.mkfifo(path)
    elif kind == "a directory":
        path.mkdir()
    else:
        path.symlink_to("nothing")
    with pytest.raises(EngineError, match=rf"journal\.jsonl: it is .*{kind}"):
        replay(path)


def test_a_journal_of_a_terabyte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(EngineError, match="larger than 1 GiB"):
        replay(path)
    with path.open("wb") as file:
        file.truncate(1 << 28)
    with pytest.raises(EngineError, match="a line of more than 64 MiB"):
        replay(path)


def test_a_field_of_another_type_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(encode(ALL[0]).replace(b'"trial_id":1', b'"trial_id":"x"') + encode(ALL[1]))
    found, told = damage(path)
    assert found == (ALL[1],)
    assert "has a `trial_id` that is text" in told[0]
