"""The log lines of a trial, each with its run, stream, rank and level, also while they are written.

The supervisor keeps a log below its limit by replacing it with its head, a mark with the number of bytes
removed, and the newest output; a reader continues at the right byte after that. A run may write anything: an
unreadable log is replaced with a message. Lines are not timestamped, so filters by time select whole runs.
"""

from __future__ import annotations

import os
import re
from collections import deque
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice
from typing import TYPE_CHECKING, Final

from detbuild.store.experiment_dir import OUTPUT_FILES
from determined._contract.run_info import CUT_MARK, OUTPUT_LIMIT, kept_output
from determined._contract.untrusted import UntrustedError, UntrustedMissingError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

    from detbuild.store.experiment_dir import ExperimentFolder, RunFolder
    from detbuild.store.state import RunState, TrialState

STREAMS: Final = ("stdout", "stderr")
_RANK: Final = re.compile(r"\[rank=(\d+)\] ?")
_LEVEL: Final = re.compile(r"(?:\[[^\]]*\] ?)?(TRACE|DEBUG|INFO|WARN(?:ING)?|ERROR|CRITICAL|FATAL)\b[ :\]]")
LARGEST_LOG = 2 * OUTPUT_LIMIT  # bytes; twice the limit of the supervisor
_BLOCK = 1 << 20
_LONGEST_MARK = 100
TAIL_LINES: Final = 20  # lines shown of the output of a failed run
_LONGEST = 64 << 10  # bytes of one line; a longer one is split
_TAIL = 64 << 10  # bytes read for the last lines


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


class _RunLines:
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
        self._streams: dict[tuple[int, str], _RunLines] = {}

    def new(self, trial: TrialState) -> Iterator[LogLine]:
        """Yield the lines since the last call, and the rest of runs that have ended."""
        for run in trial.runs:
            if not self.wanted.takes_run(run):
                continue
            for stdtype in (name for name in STREAMS if name in self.wanted.stdtypes):
                key = (run.run, stdtype)
                if key not in self._streams:
                    self._streams[key] = _RunLines(self.folder, trial.id, run, stdtype)
                lines = self._streams[key].new(over=run.finished is not None)
                yield from (line for line in lines if self.wanted.takes(line))


def some(lines: Iterable[LogLine], head: int | None, tail: int | None) -> Iterable[LogLine]:
    """Return the first `head` lines, the last `tail` lines, or all."""
    if head is not None:
        return islice(lines, head)
    return lines if tail is None else deque(lines, maxlen=tail)


class LogFile:
    """Reads one log incrementally."""

    def __init__(self, folder: RunFolder, stream: str, *, limit: int = OUTPUT_LIMIT) -> None:
        self._folder = folder
        self._stream = stream
        self._head = kept_output(limit)
        self._passed = 0  # bytes of output, including removed ones
        self._refused = ""  # why it cannot be read, once reported

    def blocks(self) -> Iterator[bytes]:
        """Yield the data appended since the last call; none if there is no file."""
        try:
            file = _open_log(self._folder, self._stream)
        except UntrustedMissingError:
            return
        except UntrustedError as error:
            if error.reason != self._refused:
                self._refused = error.reason
                yield left_out(self._stream, error)
            return
        with file:
            gone = self._seek(file)
            while file.tell() < LARGEST_LOG and (block := file.read(_BLOCK)):
                place = file.tell()
                self._passed = place if place <= self._head else place + gone
                yield block

    def lines(self) -> Iterator[bytes]:
        """Yield the new data as lines with their line ends."""
        held: list[bytes] = []
        for block in self.blocks():
            for line in block.splitlines(keepends=True):
                held.append(line)
                if line.endswith(b"\n"):
                    yield b"".join(held)
                    held.clear()
        if held:
            yield b"".join(held)

    def _seek(self, file: BinaryIO) -> int:
        """Seek to the next data; return the offset between output and file after the mark."""
        found = CUT_MARK.match(os.pread(file.fileno(), _LONGEST_MARK, self._head))
        if not found and self._passed > os.fstat(file.fileno()).st_size:
            self._passed = self._head  # the disk was full, so all but the head was dropped
        gone, mark = (int(found[1]), len(found[0])) if found else (0, 0)
        if self._passed >= self._head + gone:
            file.seek(self._passed - gone + mark)
        else:  # the removed part was not read: continue with the mark
            file.seek(min(self._passed, self._head))
        return gone - mark


def _open_log(folder: RunFolder, stream: str) -> BinaryIO:
    """Open the log of "stdout" or "stderr".

    Raises:
        UntrustedError: It is not a regular file, or too large.
    """
    return folder.files.open(OUTPUT_FILES[stream], limit=LARGEST_LOG)


def left_out(stream: str, error: UntrustedError) -> bytes:
    """Return the message that replaces a log that cannot be read."""
    return f"[detbuild: {OUTPUT_FILES[stream]} {error.reason}; skipped]\n".encode()


class OutputFile:
    """Reads the lines of one stream incrementally. Bytes that are not valid UTF-8 become U+FFFD."""

    def __init__(self, folder: RunFolder, stream: str) -> None:
        self._log = LogFile(folder, stream)
        self._held = b""

    def new(self) -> Iterator[str]:
        """Yield the lines completed since the last call."""
        for data in self._log.blocks():
            *lines, self._held = (self._held + data).split(b"\n")
            yield from (_text(line) for line in lines)
            if len(self._held) > _LONGEST:
                yield _text(self._held)
                self._held = b""

    def rest(self) -> Iterator[str]:
        """Yield the rest after the run has ended, including an incomplete last line."""
        yield from self.new()
        if self._held:
            yield _text(self._held)
            self._held = b""


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").removesuffix("\r")


def tail(folder: RunFolder, lines: int = TAIL_LINES) -> tuple[str, ...]:
    """Return the last lines of stderr, or of stdout if stderr is empty."""
    for stream in ("stderr", "stdout"):
        found = _last(folder, stream, lines)
        if found:
            return found
    return ()


def last_text(folder: RunFolder, stream: str, limit: int) -> tuple[str, bool]:
    """Return the last complete lines within `limit` bytes, and whether earlier output was cut."""
    data, cut = _end_of(folder, stream, limit)
    if cut:
        data = data.partition(b"\n")[2] or data
    return data.decode("utf-8", "replace"), cut


def _last(folder: RunFolder, stream: str, lines: int) -> tuple[str, ...]:
    data, _ = _end_of(folder, stream, _TAIL)
    return tuple(_text(line)[:500] for line in data.splitlines()[-lines:])


def _end_of(folder: RunFolder, stream: str, limit: int) -> tuple[bytes, bool]:
    """Return the last bytes of a log, and whether there are more before them."""
    try:
        file = _open_log(folder, stream)
    except UntrustedMissingError:
        return b"", False
    except UntrustedError as error:
        return left_out(stream, error), False
    with file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - limit))
        return file.read(limit), size > limit
