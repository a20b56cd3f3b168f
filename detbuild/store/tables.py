"""SQLite tables used as caches: a table of another version is dropped and rebuilt."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_PATIENCE: Final = 0.5  # timeout of a locked file, seconds


def open_table(file: Path, table: str, *, version: int) -> sqlite3.Connection:
    """Open a file with one table, created if the file has none of this version.

    Args:
        table: Name and columns, as for `CREATE TABLE`.
        version: Version of the row format.

    Raises:
        sqlite3.Error: The file is locked, damaged, or on a disk without locks.
    """
    with suppress(OSError):  # SQLite reports it in more detail
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
    """Remove SQLite's companion files of a database that is removed or renamed."""
    for end in ("-wal", "-shm"):
        file.with_name(file.name + end).unlink(missing_ok=True)
