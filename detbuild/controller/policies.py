"""Looks for the config's `log_policies` in the output of a run, while it grows and at a bounded cost.

A pattern is Python's, as the config promises; one that takes for ever on some line is given up, and not the
controller.
"""

from __future__ import annotations

import re
import signal
import threading
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from detbuild.store.output import OutputFile

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from types import FrameType

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.store.folder import RunFolder

STREAMS: Final = ("stdout", "stderr")
_LINES: Final = 2000  # of a stream at one look
_LONGEST: Final = 8191  # characters of a line that are looked at, as in Determined
_PATIENCE: Final = 0.25  # seconds for one look
_LAST_PATIENCE: Final = 5.0  # for what is left when the run is over


class _TooSlowError(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Policy:
    name: str
    pattern: re.Pattern[str]
    cancels_retries: bool


def policies_of(config: ExperimentConfig) -> tuple[Policy, ...]:
    """The policies that have a pattern, the defaults among them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a set such as [[a] is odd, and legal
        return tuple(
            Policy(policy.name or policy.pattern, re.compile(_bare(policy.pattern)), _cancels(policy.action))
            for policy in config.log_policies
            if policy.pattern is not None
        )


def _cancels(action: str | None) -> bool:
    """On one host there is no other node to go to, so `exclude_node` leaves nowhere to try again."""
    return action is not None


def _bare(pattern: str) -> str:
    """The same without the `.*` around it: it finds nothing more, and costs the square of a line's length."""
    if pattern.startswith(".*") and pattern[2:3] not in {"?", "+", "*", "{"}:
        pattern = pattern[2:]
    if re.search(r"(?<!\\)(\\\\)*\.\*\Z", pattern):
        pattern = pattern[:-2]
    return pattern


class PolicyWatch:
    """The output of one run."""

    def __init__(self, folder: RunFolder, policies: tuple[Policy, ...]) -> None:
        self._open = list(policies)
        self._outputs = [OutputFile(folder, stream) for stream in STREAMS]
        self._unread: list[Iterator[str]] = [output.new() for output in self._outputs]

    def matched(self, known: Collection[str], *, over: bool = False) -> list[Policy]:
        """The policies that new output matches, each once.

        Args:
            known: Names of those that are not looked for any more.
            over: The run has ended: look at all that is left.
        """
        self._open = [policy for policy in self._open if policy.name not in known]
        found: list[Policy] = []
        for index, output in enumerate(self._outputs):
            lines = self._rest(index, output) if over else self._some(index, output)
            self._look(lines, found, _LAST_PATIENCE if over else _PATIENCE)
        return found

    def _some(self, index: int, output: OutputFile) -> Iterator[str]:
        seen = 0
        for line in islice(self._unread[index], _LINES):
            seen += 1
            yield line
        if seen < _LINES:
            self._unread[index] = output.new()

    def _rest(self, index: int, output: OutputFile) -> Iterator[str]:
        yield from self._unread[index]
        yield from output.rest()

    def _look(self, lines: Iterator[str], found: list[Policy], patience: float) -> None:
        current: Policy | None = None
        try:
            with _deadline(patience):
                for line in lines:
                    if not self._open:
                        break
                    for current in tuple(self._open):
                        if current.pattern.search(line, 0, _LONGEST):
                            found.append(current)
                            self._open.remove(current)
                    current = None
        except _TooSlowError:
            if current in self._open:
                self._open.remove(current)


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Raise _TooSlowError in the block once its time is up; only the main thread can be interrupted so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    running = True

    def ring(_number: int, _frame: FrameType | None) -> None:
        if running:
            raise _TooSlowError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        running = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
