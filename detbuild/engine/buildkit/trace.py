"""BuildKit's progress messages (`moby.buildkit.trace`) as events."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from detbuild.credentials import masked_urls
from detbuild.engine.buildkit import wire
from detbuild.events import BuildOutput, BuildStep

if TYPE_CHECKING:
    from collections.abc import Iterator

_KEPT_LINES = 200  # of output of each step, for the error message


@dataclass
class Step:
    """A vertex of the build graph, with the progress received so far."""

    name: str = ""
    cached: bool = False
    running: bool = False
    seconds: float | None = None
    error: str = ""
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT_LINES))
    unfinished: dict[int, bytes] = field(default_factory=dict)  # the last piece of a line, by stream

    @property
    def event(self) -> BuildStep:
        return BuildStep(self.name, self.cached, self.seconds, self.error)


class Trace:
    """The progress of one build, collected from its messages."""

    def __init__(self) -> None:
        self.steps: dict[str, Step] = {}  # by digest, in the order received

    @property
    def failed(self) -> Step | None:
        """The step that failed first; its failure cancels the others."""
        errors = (step for step in self.steps.values() if step.error)
        return min(errors, key=lambda step: "context canceled" in step.error, default=None)

    def read(self, data: bytes) -> Iterator[BuildStep | BuildOutput]:
        """Yield the events of one message.

        Raises:
            ValueError: The bytes are not a message.
        """
        status = wire.fields(data)
        for vertex in wire.blobs(status, 1):
            yield from self._vertex(wire.fields(vertex))
        for log in wire.blobs(status, 3):
            yield from self._log(wire.fields(log))

    def _vertex(self, vertex: wire.Fields) -> Iterator[BuildStep | BuildOutput]:
        step = self.steps.setdefault(wire.text(vertex, 1), Step())
        before = (step.event, step.running)
        started, completed = _time(vertex, 5), _time(vertex, 6)
        step.name = wire.text(vertex, 3)
        step.cached = bool(wire.number(vertex, 4))
        step.error = wire.text(vertex, 7)
        step.running = step.running or bool(started and not completed)
        # completed without a run or a result: only a cache lookup
        if completed and (step.running or step.cached or step.error):
            yield from self._flush(step)
            step.seconds = completed - started
        if (step.event, step.running) != before and (step.running or step.seconds is not None):
            yield step.event

    def _log(self, log: wire.Fields) -> Iterator[BuildOutput]:
        step = self.steps.setdefault(wire.text(log, 1), Step())
        stream = wire.number(log, 3)
        *lines, rest = (step.unfinished.pop(stream, b"") + b"".join(wire.blobs(log, 4))).split(b"\n")
        step.unfinished[stream] = rest
        for line in lines:
            yield self._line(step, line)

    def _flush(self, step: Step) -> Iterator[BuildOutput]:
        for rest in filter(None, step.unfinished.values()):
            yield self._line(step, rest)
        step.unfinished.clear()

    @staticmethod
    def _line(step: Step, line: bytes) -> BuildOutput:
        # a progress bar overwrites itself: keep what a terminal would show
        text = masked_urls(line.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace"))
        step.lines.append(text)
        return BuildOutput(step.name, text)


def _time(vertex: wire.Fields, number: int) -> float:
    """Read a Timestamp in seconds; 0 if absent."""
    stamp = wire.fields(b"".join(wire.blobs(vertex, number)[-1:]))
    return wire.number(stamp, 1) + wire.number(stamp, 2) / 1e9
