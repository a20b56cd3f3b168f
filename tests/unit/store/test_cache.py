from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from detbuild.events import Event, Warned
from detbuild.store import cache
from detbuild.store.cache import Summary, TimeBudget, open_table, remove_companions, summaries
from detbuild.store.experiment_dir import Header
from detbuild.store.home import Home
from detbuild.store.journal import ExperimentFinished, TrialCreated

if TYPE_CHECKING:
    from pathlib import Path

    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.state import ExperimentState


def experiment(home: Home, *, over: bool = True) -> Summary:
    folder = home.new_experiment()
    header = Header(
        id=folder.id, name=f"e{folder.id}", context_name="c", created=1.0, labels=("a",), metric="loss"
    )
    folder.write(header, {})
    folder.record(TrialCreated(trial_id=1, seed=0))
    ended = folder.record(ExperimentFinished(state="COMPLETED", why="")).time if over else None
    return Summary(
        id=folder.id,
        name=f"e{folder.id}",
        state="COMPLETED" if over else "QUEUED",
        why="",
        metric="loss",
        best=None,
        steps_completed=0,
        progress=float(over),
        trial_count=1,
        checkpoint_count=0,
        created=1.0,
        ended=ended,
        local=False,
        test_mode=False,
        labels=("a",),
    )


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path)


def listed(home: Home) -> tuple[list[Summary], list[Event]]:
    events: list[Event] = []
    return list(summaries(home, events.append)), events


def test_experiments_are_listed_newest_first_with_and_without_an_index(home: Home) -> None:
    wanted = [experiment(home), experiment(home, over=False), experiment(home)][::-1]
    home.new_experiment()  # a submission that was never finished
    assert listed(home) == (wanted, [])
    assert home.index.exists()
    assert listed(home) == (wanted, [])


def test_what_is_over_is_not_read_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [experiment(home), experiment(home, over=False)][::-1]
    listed(home)
    read: list[int] = []
    load = cache.load_cached

    def reading(home: Home, folder: ExperimentFolder, allowance: TimeBudget) -> ExperimentState:
        read.append(folder.id)
        return load(home, folder, allowance)

    monkeypatch.setattr(cache, "load_cached", reading)
    assert listed(home) == (wanted, [])
    assert read == [2]


@pytest.mark.parametrize("offset", [0, 100, 5000])
def test_a_destroyed_index_is_quarantined_and_rebuilt(home: Home, offset: int) -> None:
    wanted = [experiment(home) for _ in range(50)][::-1]
    listed(home)
    with closing(sqlite3.connect(home.index)) as whole:
        whole.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    body = bytearray(home.index.read_bytes())
    body[offset : offset + 3000] = bytes(range(250)) * 12
    home.index.write_bytes(body)
    found, events = listed(home)
    assert found == wanted
    assert [type(event) for event in events] in ([Warned], [])
    assert listed(home) == (wanted, [])


def test_a_locked_index_is_done_without(home: Home) -> None:
    wanted = [experiment(home)]
    listed(home)
    with closing(sqlite3.connect(home.index, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        assert listed(home) == (wanted, [])


def test_one_that_cannot_be_read_hides_no_other(home: Home) -> None:
    wanted, broken, other = experiment(home), experiment(home), experiment(home, over=False)
    (home.experiment(broken.id).path / "experiment.json").write_text("{")
    found, (warning,) = listed(home)
    assert found == [other, wanted]
    assert isinstance(warning, Warned)
    assert warning.message.startswith("experiment 2 is damaged and skipped: cannot read ")
    assert warning.hint


def test_an_index_of_another_version_is_forgotten(home: Home) -> None:
    wanted = [experiment(home)]
    with closing(sqlite3.connect(home.index)) as other:
        other.executescript("CREATE TABLE experiments (what TEXT); PRAGMA user_version = 99;")
    assert listed(home) == (wanted, [])


def test_an_experiment_whose_folder_was_deleted_is_not_listed(home: Home) -> None:
    gone, kept = experiment(home), experiment(home)
    listed(home)
    for path in sorted(home.folder(gone.id).path.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    home.folder(gone.id).path.rmdir()
    assert listed(home) == ([kept], [])


def test_a_number_that_was_given_out_again_is_another_experiment(home: Home) -> None:
    experiment(home)
    listed(home)
    shutil.rmtree(home.folder(1).path)
    again = replace(experiment(home), id=1)
    assert listed(home) == ([again], [])


TABLE = "words (word TEXT PRIMARY KEY)"


def words(file: Path, *, version: int) -> list[str]:
    with closing(open_table(file, TABLE, version=version)) as table:
        return [word for (word,) in table.execute("SELECT word FROM words")]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "words.sqlite"
    with closing(open_table(path, TABLE, version=1)) as table, table:
        table.execute("INSERT INTO words VALUES ('kept')")
    return path


def test_a_table_keeps_its_rows_until_its_version_changes(file: Path) -> None:
    assert words(file, version=1) == ["kept"]
    assert words(file, version=2) == []
    assert words(file, version=1) == []


def test_what_is_no_table_is_told(tmp_path: Path) -> None:
    file = tmp_path / "words.sqlite"
    file.write_bytes(b"no table" * 200)
    with pytest.raises(sqlite3.DatabaseError):
        open_table(file, TABLE, version=1)


def test_nothing_is_left_beside_a_file_that_is_removed(file: Path) -> None:
    table = open_table(file, TABLE, version=1)
    table.execute("SELECT word FROM words").fetchall()
    table.execute("INSERT INTO words VALUES ('late')")
    assert len(list(file.parent.iterdir())) > 1
    remove_companions(file)
    assert list(file.parent.iterdir()) == [file]
    table.close()
