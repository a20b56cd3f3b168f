"""An index of the experiments that have ended, so that listing thousands of them is fast.

It is only a cache: if it is missing, damaged, locked or of another version, it is rebuilt from the files.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from detbuild.events import Warned
from detbuild.store.digests import TimeBudget, TooLongError, load_cached
from detbuild.store.progress import Goal
from detbuild.store.state import fold
from detbuild.store.tables import open_table, remove_companions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from detbuild.events import Emit
    from detbuild.store.folder import ExperimentFolder
    from detbuild.store.home import Home
    from detbuild.store.state import ExperimentState

_VERSION = 3  # of the row format; rows of another version are dropped
_TABLE = "experiments (id INTEGER PRIMARY KEY, made INTEGER, summary TEXT)"
_Key = tuple[int, int]  # number and `made`: the number of a deleted folder may be used again


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
    goal = Goal(header.metric, header.smaller_is_better)
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
    try:
        state = load_cached(home, folder, TimeBudget())
    except TooLongError as error:
        emit(
            Warned(
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
        yield Warned(
            f"the journal of experiment {state.header.id} is damaged: {state.damage[0]}{more}",
            "restore the file; the other lines are used",
        )


def _read(file: Path, emit: Emit) -> Mapping[_Key, Summary]:
    if not file.exists():  # allowed: the index of the host
        return {}
    try:
        with closing(open_table(file, _TABLE, version=_VERSION)) as index:
            rows = index.execute("SELECT id, made, summary FROM experiments").fetchall()
            return {(number, made): _summary(text) for number, made, text in rows}
    except sqlite3.OperationalError:
        return {}  # locked, or on a disk that cannot lock
    except (sqlite3.DatabaseError, ValueError, TypeError) as error:
        aside = file.with_name(f"{file.name}.damaged")
        emit(Warned(f"{file} is damaged ({error}); kept as {aside.name} and rebuilt from the files"))
        file.replace(aside)  # allowed: the index of the host
        remove_companions(file)
        return {}


def _write(file: Path, learnt: Mapping[_Key, Summary]) -> None:
    if not learnt:
        return
    rows = [(*key, json.dumps(asdict(summary))) for key, summary in learnt.items()]
    try:
        with closing(open_table(file, _TABLE, version=_VERSION)) as index, index:
            index.executemany("INSERT OR REPLACE INTO experiments VALUES (?, ?, ?)", rows)
    except sqlite3.Error:
        return  # only a cache


def _summary(text: str) -> Summary:
    raw = json.loads(text)
    return Summary(**{**raw, "labels": tuple(raw["labels"])})
