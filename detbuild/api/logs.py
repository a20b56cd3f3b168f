"""The logs of one trial: filtered line by line, or byte for byte, followed until the trial ends."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Final

from detbuild.store.logs import STREAMS, Level, LogFile, LogFilter, LogLine, TrialLines, some
from detbuild.store.state import fold

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import BinaryIO

    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.state import ExperimentState

__all__ = ["STREAMS", "Level", "LineRange", "LogFilter", "LogLine", "TrialLogs"]
_POLL: Final = 0.2  # seconds between polls of growing files


@dataclass(frozen=True, kw_only=True, slots=True)
class LineRange:
    """Which part of a log to read."""

    follow: bool = False
    head: int | None = None
    tail: int | None = None


@dataclass(frozen=True, slots=True)
class TrialLogs:
    """What the runs of a trial wrote to stdout and stderr; the trial need not exist yet."""

    folder: ExperimentFolder
    trial_id: int

    def lines(self, selected: LogFilter, part: LineRange) -> Iterator[LogLine]:
        """Yield the lines that pass a filter; with `follow`, until the trial has ended."""
        lines = TrialLines(self.folder, selected)
        state = self._state()
        trial = state.trials.get(self.trial_id)
        if trial is not None:
            yield from some(lines.new(trial), part.head, part.tail)
        while part.follow and not self._ended(state):
            time.sleep(_POLL)
            state = self._state()
            trial = state.trials.get(self.trial_id)
            yield from lines.new(trial) if trial else ()

    def copy(self, sinks: Mapping[str, BinaryIO], part: LineRange) -> None:
        """Write the exact bytes of each stream to its sink; with `follow`, until the trial has ended."""
        pumps = [_Pump(self, stream, sink) for stream, sink in sinks.items()]
        for pump in pumps:
            pump.begin(part.head, part.tail)
        while part.head is None:
            # Checked first, so that output from before the end is still copied.
            last = not part.follow or self._ended(self._state())
            for pump in pumps:
                pump.copy()
            if last:
                return
            time.sleep(_POLL)

    def _state(self) -> ExperimentState:
        return fold(self.folder.header(), self.folder.journal())

    def _ended(self, state: ExperimentState) -> bool:
        return state.over or (self.trial_id in state.trials and state.trials[self.trial_id].ended)


@dataclass(slots=True)
class _Pump:
    """Copies one stream of all runs of a trial, including new ones, from where it last stopped."""

    logs: TrialLogs
    stream: str
    sink: BinaryIO
    known: dict[int, LogFile] = field(default_factory=dict)  # by run

    def files(self) -> Iterator[LogFile]:
        run = 0
        while (folder := self.logs.folder.run(self.logs.trial_id, run)).exists:
            yield self.known.setdefault(run, LogFile(folder, self.stream))
            run += 1

    def begin(self, head: int | None, tail: int | None) -> None:
        """Write the first or last lines; without either, nothing yet."""
        if head is not None:
            self._write(islice(self._lines(), head))
        elif tail is not None:
            self._write(deque(self._lines(), maxlen=tail))

    def copy(self) -> None:
        """Write new data in blocks: a line may be as long as the file."""
        for file in self.files():
            self.sink.writelines(file.blocks())
        self.sink.flush()

    def _lines(self) -> Iterator[bytes]:
        for file in self.files():
            yield from file.lines()

    def _write(self, lines: Iterable[bytes]) -> None:
        self.sink.writelines(lines)
        self.sink.flush()
