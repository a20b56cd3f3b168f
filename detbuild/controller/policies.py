"""Searches the growing output of a run for the config's `log_policies`, at a bounded cost.

Patterns are Python regular expressions; one that takes too long on a line is dropped, so that the controller
is not blocked.
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

from detbuild.store.logs import OutputFile

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from types import FrameType

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.store.experiment_dir import RunFolder

STREAMS: Final = ("stdout", "stderr")
_LINES: Final = 2000  # of a stream in one poll
_LONGEST: Final = 8191  # characters of a line that are searched, as in Determined
_TIMEOUT: Final = 0.25  # seconds for one poll
_LAST_TIMEOUT: Final = 5.0  # for the rest, once the run has ended


class _TooSlowError(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Policy:
    name: str
    pattern: re.Pattern[str]
    cancels_retries: bool


def policies_of(config: ExperimentConfig) -> tuple[Policy, ...]:
    """Return the policies that have a pattern, including the defaults."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a set such as [[a] warns, but is valid
        return tuple(
            Policy(policy.name or policy.pattern, re.compile(_bare(policy.pattern)), _cancels(policy.action))
            for policy in config.log_policies
            if policy.pattern is not None
        )


def _cancels(action: str | None) -> bool:
    """Whether the action cancels retries: on one host, so does `exclude_node`."""
    return action is not None


def _bare(pattern: str) -> str:
    """Strip the `.*` around a pattern: it matches nothing more, and costs quadratic time."""
    if pattern.startswith(".*") and pattern[2:3] not in {"?", "+", "*", "{"}:
        pattern = pattern[2:]
    if re.search(r"(?<!\\)(\\\\)*\.\*\Z", pattern):
        pattern = pattern[:-2]
    return pattern


class PolicyWatch:
    """A search of the output of one run."""

    def __init__(self, folder: RunFolder, policies: tuple[Policy, ...]) -> None:
        self._open = list(policies)
        self._outputs = [OutputFile(folder, stream) for stream in STREAMS]
        self._unread: list[Iterator[str]] = [output.new() for output in self._outputs]

    def matched(self, known: Collection[str], *, over: bool = False) -> list[Policy]:
        """Return the policies that new output matches, each once.

        Args:
            known: Names of policies that have matched before.
            over: The run has ended: search all that is left.
        """
        self._open = [policy for policy in self._open if policy.name not in known]
        found: list[Policy] = []
        for index, output in enumerate(self._outputs):
            lines = self._rest(index, output) if over else self._some(index, output)
            self._search(lines, found, _LAST_TIMEOUT if over else _TIMEOUT)
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

    def _search(self, lines: Iterator[str], found: list[Policy], timeout: float) -> None:
        current: Policy | None = None
        try:
            with _deadline(timeout):
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
    """Raise _TooSlowError in the block at its timeout; only in the main thread, by SIGALRM."""
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
