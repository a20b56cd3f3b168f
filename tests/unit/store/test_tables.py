from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from detbuild.store.tables import open_table, remove_companions

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
