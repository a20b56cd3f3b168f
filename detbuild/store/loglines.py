"""The log lines of a trial, each with its run, stream, rank and level.

Log lines are not timestamped, so filters by time select whole runs.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice
from typing import TYPE_CHECKING, Final

from detbuild.store.output import OutputFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from detbuild.store.folder import ExperimentFolder
    from detbuild.store.state import RunState, TrialState

STREAMS: Final = ("stdout", "stderr")
_RANK: Final = re.compile(r"\[rank=(\d+)\] ?")
_LEVEL: Final = re.compile(r"(?:\[[^\]]*\] ?)?(TRACE|DEBUG|INFO|WARN(?:ING)?|ERROR|CRITICAL|FATAL)\b[ :\]]")


class Level(IntEnum):
    """The level of a log line, from the word that it begins with."""

    TRACE = 5
    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40
    CRITICAL = 50


_OTHER_WORDS: Final = {"WARN": Level.WARNING, "FATAL": Level.CRITICAL}


@dataclass(frozen=True, kw_only=True, slots=True)
class LogLine:
    run: int
    container: str  # "" for a run on the host itself
    stdtype: str  # "stdout" or "stderr"
    rank: int  # 0 if the line has none
    level: Level
    message: str  # without the line end


@dataclass(frozen=True, kw_only=True, slots=True)
class LogFilter:
    """A filter of log lines; an empty or None field matches all."""

    stdtypes: tuple[str, ...] = STREAMS
    ranks: tuple[int, ...] = ()
    containers: tuple[str, ...] = ()  # ids or prefixes of ids
    min_level: Level | None = None
    before: float | None = None  # seconds since the epoch: only runs that started before
    after: float | None = None  # only runs that ended after

    def takes_run(self, run: RunState) -> bool:
        if self.containers and not any(run.container.startswith(one) for one in self.containers if one):
            return False
        begun_late = self.before is not None and run.started is not None and run.started >= self.before
        ended_early = self.after is not None and run.ended is not None and run.ended <= self.after
        return not (begun_late or ended_early)

    def takes(self, line: LogLine) -> bool:
        return (not self.ranks or line.rank in self.ranks) and (
            self.min_level is None or line.level >= self.min_level
        )


class RunLines:
    """Reads the lines of one stream of a run incrementally.

    A line without a level inherits that of the previous line of its rank: a traceback belongs to its error.
    """

    def __init__(self, folder: ExperimentFolder, trial_id: int, run: RunState, stdtype: str) -> None:
        self._run = run
        self._stdtype = stdtype
        self._output = OutputFile(folder.run(trial_id, run.run), stdtype)
        self._levels: dict[int, Level] = {}

    def new(self, *, over: bool) -> Iterator[LogLine]:
        for text in self._output.rest() if over else self._output.new():
            yield self._line(text)

    def _line(self, text: str) -> LogLine:
        ranked = _RANK.match(text)
        rank = int(ranked[1]) if ranked else 0
        word = _LEVEL.match(text, ranked.end() if ranked else 0)
        if word:
            self._levels[rank] = _OTHER_WORDS.get(word[1]) or Level[word[1]]
        return LogLine(
            run=self._run.run,
            container=self._run.container,
            stdtype=self._stdtype,
            rank=rank,
            level=self._levels.get(rank, Level.INFO),
            message=text,
        )


class TrialLines:
    """Reads the lines of all runs of a trial in order, for each run first stdout, then stderr."""

    def __init__(self, folder: ExperimentFolder, wanted: LogFilter) -> None:
        self.folder = folder
        self.wanted = wanted
        self._streams: dict[tuple[int, str], RunLines] = {}

    def new(self, trial: TrialState) -> Iterator[LogLine]:
        """Yield the lines since the last call, and the rest of runs that have ended."""
        for run in trial.runs:
            if not self.wanted.takes_run(run):
                continue
            for stdtype in (name for name in STREAMS if name in self.wanted.stdtypes):
                key = (run.run, stdtype)
                if key not in self._streams:
                    self._streams[key] = RunLines(self.folder, trial.id, run, stdtype)
                lines = self._streams[key].new(over=run.finished is not None)
                yield from (line for line in lines if self.wanted.takes(line))


def some(lines: Iterable[LogLine], head: int | None, tail: int | None) -> Iterable[LogLine]:
    """Return the first `head` lines, the last `tail` lines, or all."""
    if head is not None:
        return islice(lines, head)
    return lines if tail is None else deque(lines, maxlen=tail)
