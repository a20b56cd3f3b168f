from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detbuild.errors import DiskFullError
from detbuild.store import files, journal
from detbuild.store.journal import (
    Entry,
    ExperimentFinished,
    Heeded,
    JournalFile,
    Paused,
    PolicyMatched,
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
    Entry(5.0, Heeded(number=1, verb="kill", trial_id=1)),
    Entry(5.1, Heeded(number=2, verb="continue", length={"unit": "batches", "count": 9})),
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
        with pytest.raises(DiskFullError, match="no room to write"):
            append(path, ALL[1])
    assert replay(path) == (ALL[0],)
    append(path, ALL[2])
    assert replay(path) == (ALL[0], ALL[2])


def _no_room(descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def test_a_kind_of_a_later_version_is_no_entry() -> None:
    with pytest.raises(ValueError, match="not a journal entry"):
        journal.decode(b'{"kind": "from_the_future", "time": 1}\n')
