"""Caches in SQLite for fast listings: summaries of ended experiments, and records of finished runs.

Without them, `detbuild list` and `describe` would read the files of all runs each time. The training metrics
are left out. A table that is missing, damaged, locked or of another version is rebuilt from the files, so
both files may be deleted at any time.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from detbuild.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from detbuild.events import Emit, Warned
    from detbuild.store.experiment_dir import ExperimentFolder, RunFolder
    from detbuild.store.home import Home
    from detbuild.store.records import RunRecords
    from detbuild.store.state import ExperimentState, RunState, TrialState
    from determined._contract.records import Line

_SUMMARIES_VERSION = 3  # of the row format; rows of another version are dropped
_SUMMARIES = "experiments (id INTEGER PRIMARY KEY, made INTEGER, summary TEXT)"
_Key = tuple[int, int]  # number and `made`: the number of a deleted folder may be used again
_RECORDS_VERSION: Final = 3
_RECORDS: Final = """runs (
    experiment INTEGER, run TEXT, size INTEGER, changed INTEGER, rejected_records INTEGER,
    unknown_kinds TEXT, lines BLOB,
    PRIMARY KEY (experiment, run)
) WITHOUT ROWID"""
_LONG_JOURNAL: Final = 32 << 10  # bytes; a shorter one has at most about 60 runs
_LONG_RUN: Final = 1 << 20  # bytes
_CHECK_MASK: Final = 0x3FF  # the time is checked every 1024 lines
_PATIENCE: Final = 0.5  # timeout of a locked file, seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """An experiment in a listing."""

    id: int
    name: str
    state: str
    why: str
    metric: str
    best: float | None
    steps_completed: int
    progress: float  # 0..1
    trial_count: int
    checkpoint_count: int
    created: float  # seconds since the epoch, as `ended`
    ended: float | None
    local: bool
    test_mode: bool
    labels: tuple[str, ...]


def summarize(state: ExperimentState) -> Summary:

    header, progress = state.header, [trial.progress for trial in state.trials.values()]
    goal = header.goal
    best = goal.best([p.best for p in progress if p.best])
    return Summary(
        id=header.id,
        name=header.name,
        state=state.state,
        why=state.why,
        metric=header.metric,
        best=goal.value(best) if best else None,
        steps_completed=max((p.steps_completed for p in progress), default=0),
        progress=state.progress,
        trial_count=len(state.trials),
        checkpoint_count=sum(one.state != "DELETED" for p in progress for one in p.checkpoints),
        created=header.created,
        ended=state.ended,
        local=header.local,
        test_mode=header.test_mode,
        labels=header.labels,
    )


def summaries(home: Home, emit: Emit) -> Iterator[Summary]:
    """Yield all experiments, newest first, without unfinished submissions.

    Warn of a damaged experiment, which is skipped, and of one that takes long to read, whose metrics are.
    """
    known = _read(home.index, emit)
    learnt: dict[_Key, Summary] = {}

    def read(folder: ExperimentFolder) -> Summary:
        key = (folder.id, folder.made)
        if key in known:
            return known[key]
        state, is_whole = _loaded(home, folder, emit)
        summary = summarize(state)
        if state.over and is_whole:
            learnt[key] = summary
        return summary

    yield from home.each(read, emit)
    _write(home.index, learnt)


def _loaded(home: Home, folder: ExperimentFolder, emit: Emit) -> tuple[ExperimentState, bool]:
    """Return the state, and whether it is complete and undamaged."""
    from detbuild.store.state import fold

    try:
        state = load_cached(home, folder, TimeBudget())
    except _TooLongError as error:
        emit(
            _warned(
                f"experiment {folder.id} is listed without metrics: {error}",
                f"run `detbuild describe {folder.id}`",
            )
        )
        return fold(folder.header(), folder.journal()), False
    for warning in journal_warnings(state):
        emit(warning)
    return state, not state.damage


def journal_warnings(state: ExperimentState) -> Iterator[Warned]:
    """Warn of a damaged journal."""
    if state.damage:
        more = f" (and {len(state.damage) - 1} more)" if len(state.damage) > 1 else ""
        yield _warned(
            f"the journal of experiment {state.header.id} is damaged: {state.damage[0]}{more}",
            "restore the file; the other lines are used",
        )


def _warned(message: str, hint: str = "") -> Warned:
    from detbuild.events import Warned

    return Warned(message, hint)


def _read(file: Path, emit: Emit) -> Mapping[_Key, Summary]:
    if not file.exists():  # allowed: the index of the host
        return {}
    try:
        with closing(open_table(file, _SUMMARIES, version=_SUMMARIES_VERSION)) as index:
            rows = index.execute("SELECT id, made, summary FROM experiments").fetchall()
            return {(number, made): _summary(text) for number, made, text in rows}
    except sqlite3.OperationalError:
        return {}  # locked, or on a disk that cannot lock
    except (sqlite3.DatabaseError, ValueError, TypeError) as error:
        aside = file.with_name(f"{file.name}.damaged")
        emit(_warned(f"{file} is damaged ({error}); kept as {aside.name} and rebuilt from the files"))
        file.replace(aside)  # allowed: the index of the host
        remove_companions(file)
        return {}


def _write(file: Path, learnt: Mapping[_Key, Summary]) -> None:
    if not learnt:
        return
    rows = [(*key, json.dumps(asdict(summary))) for key, summary in learnt.items()]
    try:
        with closing(open_table(file, _SUMMARIES, version=_SUMMARIES_VERSION)) as index, index:
            index.executemany("INSERT OR REPLACE INTO experiments VALUES (?, ?, ?)", rows)
    except sqlite3.Error:
        return  # only a cache


def _summary(text: str) -> Summary:
    raw = json.loads(text)
    return Summary(**{**raw, "labels": tuple(raw["labels"])})


@dataclass(frozen=True, slots=True)
class _Digest:
    size: int  # of the file, bytes
    changed: int  # modification time of the file, nanoseconds since the epoch
    rejected_records: int
    unknown_kinds: str  # a JSON list
    lines: bytes  # records, as in the file

    def records(self, run: str) -> RunRecords:
        from detbuild.store.records import RecordParser, RunRecords, extended

        records = extended(RunRecords(), RecordParser(run).feed(self.lines))
        return replace(
            records,
            rejected_records=self.rejected_records,
            unknown_kinds=tuple(json.loads(self.unknown_kinds)),
        )


class _TooLongError(EngineError):
    """Reading one experiment exceeds its time budget in a listing."""


class TimeBudget:
    """The CPU time for reading the records of one experiment in a listing.

    CPU time does not depend on the load of the host, so that a busy host skips no experiment.
    """

    def __init__(self, seconds: float = 5.0) -> None:
        self._seconds = seconds
        self._end = time.thread_time() + seconds

    def check(self) -> None:
        """Raise _TooLongError if the budget is spent."""
        if time.thread_time() > self._end:
            raise _TooLongError(f"reading its records takes more than {self._seconds:g} s to read")

    def along(self, lines: Iterable[Line]) -> Iterator[Line]:
        """Yield the lines, and check the budget from time to time."""
        for number, line in enumerate(lines):
            if not number & _CHECK_MASK:
                self.check()
            yield line


def records_within(
    allowance: TimeBudget,
) -> Callable[[ExperimentFolder, TrialState], tuple[RunRecords, ...]]:
    """Return a reader of trial records for `state.load` that stays within the time budget."""

    def read(folder: ExperimentFolder, trial: TrialState) -> tuple[RunRecords, ...]:
        from detbuild.store.records import read_run

        found = []
        for run in trial.runs:
            allowance.check()
            over = run.finished is not None
            found.append(read_run(folder.run(trial.id, run.run), over=over, along=allowance.along))
        return tuple(found)

    return read


def load_cached(home: Home, folder: ExperimentFolder, allowance: TimeBudget | None = None) -> ExperimentState:
    """Load the state like `state.load`, with the records of finished runs from the cache.

    Raises:
        _TooLongError: It exceeds the time budget; runs read so far are cached for the next call.
    """
    from detbuild.store.state import load

    shelf = _Shelf(home, folder, allowance)
    try:
        return load(folder, shelf.read)
    finally:
        if shelf.learnt:
            _write_digest(home, folder.id, shelf.learnt)


class _Shelf:
    """The cached runs of one experiment, opened only if needed: few and short runs are faster to read."""

    def __init__(self, home: Home, folder: ExperimentFolder, allowance: TimeBudget | None) -> None:
        self._home = home
        self._folder = folder
        self._allowance = allowance
        self._many = _stamp(folder.journal_file)[0] > _LONG_JOURNAL
        self.learnt: dict[str, _Digest] = {}

    @cached_property
    def _known(self) -> Mapping[str, _Digest]:
        return _read_digest(self._home.digests, self._folder.id)

    def read(self, folder: ExperimentFolder, trial: TrialState) -> tuple[RunRecords, ...]:
        return tuple(self._records(folder.run(trial.id, run.run), run) for run in trial.runs)

    def _records(self, folder: RunFolder, run: RunState) -> RunRecords:
        from detbuild.store.records import read_run

        size, changed = _stamp(folder.events)
        if self._allowance is not None:
            self._allowance.check()
        if run.finished is None or not (size > _LONG_RUN or (size and self._many)):
            return read_run(folder, over=run.finished is not None, along=self._along)
        digest = self._known.get(folder.name)
        if digest is None or (digest.size, digest.changed) != (size, changed):
            kept = _Kept()
            records = read_run(folder, over=True, along=lambda lines: kept.along(self._along(lines)))
            self.learnt[folder.name] = _Digest(
                size, changed, records.rejected_records, json.dumps(records.unknown_kinds), kept.lines()
            )
            return records
        return digest.records(folder.name)

    def _along(self, lines: Iterator[Line]) -> Iterable[Line]:
        return lines if self._allowance is None else self._allowance.along(lines)


class _Kept:
    """The lines of a run that are still needed after it has ended: of training and progress, the newest."""

    def __init__(self) -> None:
        self._all: list[Line] = []
        self._newest: dict[type, Line] = {}

    def along(self, lines: Iterable[Line]) -> Iterator[Line]:
        from determined._contract.records import Measured, Progress, Training

        for line in lines:
            kind = type(line.record)
            if kind in {Training, Progress}:
                self._newest[kind] = line
            elif kind is not Measured:
                self._all.append(line)
            yield line

    def lines(self) -> bytes:
        """Encode the lines by their numbers, since the parser forgets old gaps."""
        from determined._contract.records import encode

        return b"".join(map(encode, sorted([*self._all, *self._newest.values()], key=attrgetter("seq"))))


def _stamp(file: Path) -> tuple[int, int]:
    try:
        found = os.lstat(file)  # allowed: tens of thousands; nothing is read, and a link has its own size
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _read_digest(file: Path, experiment_id: int) -> Mapping[str, _Digest]:
    if not file.exists():  # allowed: the cache of the host
        return {}
    try:
        with _opened(file) as digests:
            rows = digests.execute(
                """SELECT run, size, changed, rejected_records, unknown_kinds, lines
                FROM runs WHERE experiment = ?""",
                (experiment_id,),
            ).fetchall()
    except sqlite3.OperationalError:
        return {}  # locked, or on a disk that cannot lock
    except sqlite3.DatabaseError:
        file.unlink(missing_ok=True)  # allowed: the cache of the host
        remove_companions(file)
        return {}
    return {run: _Digest(*values) for run, *values in rows}


def _write_digest(home: Home, experiment_id: int, learnt: Mapping[str, _Digest]) -> None:
    rows = [
        (experiment_id, run, d.size, d.changed, d.rejected_records, d.unknown_kinds, d.lines)
        for run, d in learnt.items()
    ]
    with suppress(sqlite3.Error), _opened(home.digests) as digests, digests:  # only a cache
        there = {number for (number,) in digests.execute("SELECT DISTINCT experiment FROM runs")}
        deleted = [(number,) for number in there - set(home.ids())]
        digests.executemany("DELETE FROM runs WHERE experiment = ?", deleted)
        digests.executemany("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?)", rows)


def _opened(file: Path) -> closing[sqlite3.Connection]:
    return closing(open_table(file, _RECORDS, version=_RECORDS_VERSION))


def open_table(file: Path, table: str, *, version: int) -> sqlite3.Connection:
    """Open a file with one table, created if the file has none of this version.

    Args:
        table: Name and columns, as for `CREATE TABLE`.
        version: Version of the row format.

    Raises:
        sqlite3.Error: The file is locked, damaged, or on a disk without locks.
    """
    with suppress(OSError):  # SQLite reports it in more detail
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # allowed: in no mount
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
        file.with_name(file.name + end).unlink(missing_ok=True)  # allowed: in no mount
