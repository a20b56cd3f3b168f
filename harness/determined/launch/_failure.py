"""Finds the cause of a failed launch in the reports of its ranks, and describes it."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from determined._exit_codes import ExitCode
from determined._records import Ended, ExitReason
from determined.launch._reports import EndReported, RankExited

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SHOWN = 10  # lines of output in a message
_GOOD = {ExitReason.COMPLETED, ExitReason.PREEMPTED, ExitReason.STOPPED}


@dataclass(slots=True)
class End:
    """How one rank ended, as far as known."""

    reported: EndReported | None = None
    exited: RankExited | None = None
    killed: bool = False  # by the launcher, because another rank failed

    def bad(self, *, is_trial: bool) -> bool:
        """Whether it failed, so that the others would wait forever."""
        if self.reported is not None:
            return self.reported.ended.reason not in _GOOD
        return self.exited is not None and (self.exited.code != 0 or is_trial)


@dataclass(frozen=True, slots=True)
class Failure:
    """The result of a launch that did not succeed; includes INVALID_HP, with which the run has not failed."""

    ended: Ended
    code: int
    reported: bool = False  # on stderr, by the rank itself


@dataclass(slots=True)
class Ends:
    """The ends of all ranks, in the order of their reports."""

    size: int
    is_trial: bool  # the harness's worker, which always reports how it ended
    of: dict[int, End] = field(default_factory=dict)
    hung: Failure | None = None

    def add(self, report: EndReported | RankExited) -> None:
        end = self.of.setdefault(report.rank, End())
        if isinstance(report, EndReported):
            end.reported = report
        else:
            end.exited = report

    def failed(self) -> bool:
        return self.hung is not None or any(end.bad(is_trial=self.is_trial) for end in self.of.values())

    def failure(self) -> Failure | None:
        """Return the cause; ends that are consequences of another one come last."""
        if self.hung is not None:
            return self.hung
        bad = [
            (rank, end) for rank, end in self.of.items() if end.bad(is_trial=self.is_trial) and not end.killed
        ]
        if not bad:
            return None
        rank, end = min(bad, key=lambda each: bool(each[1].reported and each[1].reported.consequence))
        alike = len(bad) == self.size and len({_words(each) for _, each in bad}) == 1
        return _failure(end, "" if alike or self.size == 1 else f"rank {rank} of {self.size}: ")


def _words(end: End) -> str:
    return end.reported.ended.message if end.reported else repr(end.exited)


def _failure(end: End, whose: str) -> Failure:
    if end.reported is not None:
        ended = replace(end.reported.ended, message=whose + end.reported.ended.message)
        return Failure(ended, end.reported.code, reported=True)
    assert end.exited is not None
    code, tail = end.exited.code, end.exited.tail
    message = f"{whose or 'the process '}{how(code)}{shown(tail)}"
    ended = Ended(ExitReason.ERROR, message=message, hint=_hint(code))
    return Failure(ended, 128 - code if code < 0 else code or ExitCode.USER_ERROR)


def how(code: int) -> str:
    """Describe an exit code."""
    if code < 0:
        return f"was killed by {_name(-code)}"
    return f"ended with exit code {code}" + ("" if code else " before the trial was done")


def shown(tail: Sequence[str]) -> str:
    """Format the last lines of a rank's output, to append to a message."""
    lines = [line for line in tail if line.strip()][-_SHOWN:]
    return "; its last output:\n" + "\n".join(f"  {line}" for line in lines) if lines else ""


def _hint(code: int) -> str:
    if code == -signal.SIGKILL:
        return "lower the batch size or use fewer loader workers, if the kernel ran out of memory"
    if code == 0:
        return "do not call os._exit: return from the trial's methods, or raise"
    return "see the output of that rank"


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def pids_of(began: Mapping[int, int], ends: Ends) -> dict[int, int]:
    """Return the PIDs of the programs that are still running."""
    return {rank: pid for rank, pid in began.items() if rank not in ends.of or ends.of[rank].exited is None}
