"""Tables in SQLite that only save time: one of another version is emptied, and made again on the way."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_PATIENCE: Final = 0.5  # seconds for somebody who holds the file locked


def open_table(file: Path, table: str, *, version: int) -> sqlite3.Connection:
    """Open a file with one table, which is made when there is none of this version.

    Args:
        file: Made when it is not there.
        table: Its name and columns, as `CREATE TABLE` takes them.
        version: Of what a row holds.

    Raises:
        sqlite3.Error: The file is locked, damaged, or on a disk that cannot lock.
    """
    with suppress(OSError):  # SQLite says more about it
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(file, timeout=_PATIENCE)
    try:
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        if found != version:
            connection.executescript(
                f"""
                PRAGMA journal_mode = WAL;
                DROP TABLE IF EXISTS {table.split(None, 1)[0]};
                CREATE TABLE {table};
                PRAGMA user_version = {version};
                """
            )
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def remove_companions(file: Path) -> None:
    """Remove what SQLite keeps beside a file that is removed or set aside."""
    for end in ("-wal", "-shm"):
        file.with_name(file.name + end).unlink(missing_ok=True)
