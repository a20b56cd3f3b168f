"""Classifies why a run ended, and what to do about it.

The run's own records come first: they were synced before it ended. Without them (the run was killed)
the engine's state and the exit code decide.
"""

from __future__ import annotations

import os
import re
import signal
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from detbuild.runtime.limits import OF_CONFIG, OF_HOST, binary
from detbuild.runtime.protocol import Reason
from detbuild.store.experiment_dir import WORK_DIR
from detbuild.store.journal import RunFinished
from detbuild.store.state import StopVerb
from determined._contract.checkpoints import NO_INODES
from determined._contract.hints import Where, hint_for, sounds_transient
from determined._contract.records import Ended, ExitReason
from determined._contract.run_info import ExitCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detbuild.runtime.protocol import Observation
    from detbuild.store.records import RunRecords

_HOST_DOWN = 255  # exit code of containers that ran when the engine died
_FROM_OUTSIDE = frozenset({"SIGHUP", "SIGINT", "SIGKILL", "SIGTERM"})
_WRONG_MACHINE = "exec format error"  # also has exit code 255
_RANK = re.compile(r"^\[rank=\d+\] ")
_FRAME = re.compile(r'^\s+File "(?P<file>[^"]+)", line (?P<line>\d+)')
_ERROR = re.compile(r"^(?P<type>[A-Za-z_][\w.]*)(?::.*)?$")
_NOT_FOUND = frozenset({"ModuleNotFoundError", "ImportError", "SyntaxError", "IndentationError", "TabError"})
_NO_PROGRAM = re.compile(r"^\S*python[\d.]*: (can't open file|No module named|Error while finding module)")
_SEE_LOGS = "see the last lines of its output"


class Outcome(str, Enum):
    """The outcome of a run; see the table in `docs/architecture.md`."""

    COMPLETED = "completed"
    STOPPED = "stopped"
    INVALID_HP = "invalid_hp"
    PREEMPTED = "preempted"
    KILLED = "killed"
    USER_ERROR = "user_error"
    OUT_OF_MEMORY = "out_of_memory"
    NOT_RETRYABLE = "not_retryable"
    INFRASTRUCTURE = "infrastructure"
    DISK_FULL = "disk_full"
    LOST = "lost"

    @property
    def succeeded(self) -> bool:
        return self in _SUCCEEDED

    @property
    def counts(self) -> bool:
        """Whether it counts as one of `max_restarts`: only failures of the user's code do."""
        return self in {Outcome.USER_ERROR, Outcome.OUT_OF_MEMORY}

    @property
    def may_retry(self) -> bool:
        return self.counts or self in _FREE


_BY_THE_RUNTIME = {Reason.EVICTED, Reason.PREEMPTED}
_SUCCEEDED = {Outcome.COMPLETED, Outcome.STOPPED, Outcome.INVALID_HP}
_FREE = {Outcome.INFRASTRUCTURE, Outcome.DISK_FULL, Outcome.LOST, Outcome.PREEMPTED}


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """All that is known about an ended run."""

    records: RunRecords
    observed: Observation
    stop: StopVerb = StopVerb.NONE  # why it was stopped, if it was
    memory: int = 0  # limit in bytes; 0 if unknown
    memory_source: str = ""  # where the limit comes from
    tail: tuple[str, ...] = ()
    kind: str = "container"  # what ran it, for messages
    directory: str = WORK_DIR  # working directory
    before: RunFinished | None = None  # the previous failure, of the same code and config


@dataclass(frozen=True, slots=True)
class Classification:
    outcome: Outcome
    message: str = ""
    hint: str = ""


def judge(evidence: Evidence, *, trial_id: int, run: int, restarts_left: int) -> RunFinished:
    """Classify an ended run, and decide whether it is retried."""
    classification = classify(evidence)
    outcome = classification.outcome
    may_continue = evidence.stop in {StopVerb.NONE, StopVerb.PAUSE}
    retry = outcome.may_retry and may_continue and (restarts_left > 0 or not outcome.counts)
    failure = _failure(evidence) if outcome is Outcome.USER_ERROR else ""
    steps = evidence.records.steps_completed or 0
    stuck = retry and _repeats(evidence.before, failure, steps)
    code, name = _exit(evidence)
    return RunFinished(
        trial_id=trial_id,
        run=run,
        outcome=outcome.value,
        counts=outcome.counts,
        retry=retry and not stuck,
        asked=evidence.stop,
        exit_code=code,
        signal=name,
        message=f"{classification.message}; not retried: the same error twice without progress"
        if stuck
        else classification.message,
        hint=classification.hint,
        tail=() if outcome.succeeded else evidence.tail,
        failure=failure,
        steps_completed=steps,
    )


def _repeats(before: RunFinished | None, failure: str, steps: int) -> bool:
    """Whether a run failed like the previous one, without progress."""
    return (
        before is not None and bool(failure) and (before.failure, before.steps_completed) == (failure, steps)
    )


def _failure(evidence: Evidence) -> str:
    """Return error type and line, or "" if they are unknown or the error may be transient."""
    ended = evidence.records.ended
    if ended is not None and ended.stage is not None:
        return ended.failure  # of a trial, which has identified the error itself
    trace = _last_traceback(evidence.tail)
    found = (ended.failure if ended else "") or (f"{trace.type} {trace.place}" if trace else "")
    return "" if sounds_transient("\n".join(evidence.tail)) else found


@dataclass(frozen=True, slots=True)
class Traceback:
    """The end of a traceback among the last lines of an output."""

    type: str
    text: str  # the line with the error
    place: str


def _last_traceback(tail: Sequence[str]) -> Traceback | None:
    """Return the last complete traceback, or None."""
    lines = [_RANK.sub("", line) for line in tail]
    frames = [(number, found) for number, line in enumerate(lines) if (found := _FRAME.match(line))]
    if not frames:
        return None
    number, frame = frames[-1]
    errors = (found for line in lines[number + 1 :] if (found := _ERROR.match(line)))
    error = next(errors, None)
    return Traceback(error["type"], error[0], f"{frame['file']}:{frame['line']}") if error else None


def classify(evidence: Evidence) -> Classification:
    """Classify the end of a run; the most reliable evidence decides first."""
    ended = evidence.records.ended
    if ended is not None and not ended.reason.failed:
        return _succeeded(ended)
    if evidence.stop == StopVerb.KILL:
        return Classification(Outcome.KILLED, "killed on request")
    exited = evidence.records.exited
    if evidence.observed.reason is Reason.OUT_OF_MEMORY or (exited and exited.oom_kills):
        return _out_of_memory(evidence)
    if ended is not None:
        return _failed(ended, evidence)
    if exited is not None:
        return _worker_died(evidence)
    return _container_died(evidence)


def _succeeded(ended: Ended) -> Classification:
    outcome = {
        ExitReason.COMPLETED: Outcome.COMPLETED,
        ExitReason.STOPPED: Outcome.STOPPED,
        ExitReason.PREEMPTED: Outcome.PREEMPTED,
        ExitReason.INVALID_HP: Outcome.INVALID_HP,
    }[ended.reason]
    return Classification(outcome, ended.message, ended.hint)


def _out_of_memory(evidence: Evidence) -> Classification:
    code, _ = _exit(evidence)
    if code == 0:
        return Classification(Outcome.COMPLETED)  # a loader worker was killed, but the trial completed
    source = f" ({evidence.memory_source})" if evidence.memory_source else ""
    limit = f"; its limit is {binary(evidence.memory)}{source}" if evidence.memory else ""
    return Classification(
        Outcome.OUT_OF_MEMORY,
        f"out of memory: the kernel killed a process of the run{limit}",
        f"lower the batch size or the number of data loader workers, or {_more_memory(evidence)}",
    )


def _more_memory(evidence: Evidence) -> str:
    if evidence.memory_source == OF_CONFIG:
        return "raise `resources.memory` in the experiment config"
    if evidence.memory_source == OF_HOST:
        return "run fewer trials at once: `max_concurrent_trials`, or `cpu_trials` in the home's config.yaml"
    return "stop other programs on this host"


def _failed(ended: Ended, evidence: Evidence) -> Classification:
    where = f" ({ended.stage.value})" if ended.stage else ""
    message = f"{ended.message or 'the trial failed'}{where}"
    if ended.reason is ExitReason.NOT_RETRYABLE:
        return Classification(Outcome.NOT_RETRYABLE, message, ended.hint)
    return _disk(evidence, message) or Classification(Outcome.USER_ERROR, message, ended.hint)


def _worker_died(evidence: Evidence) -> Classification:
    code, name = _exit(evidence)
    if code == 0:
        return Classification(Outcome.COMPLETED)
    if evidence.stop and (name in {"SIGTERM", "SIGKILL"} or code == _died_of(signal.SIGTERM)):
        return Classification(Outcome.PREEMPTED, "ended on request, without a new checkpoint")
    return _disk(evidence, _exit_text(code, name)) or _program_failed(evidence, code, name)


def _program_failed(evidence: Evidence, code: int | None, name: str | None) -> Classification:
    """Classify a script that failed, by its output."""
    trace, last = _last_traceback(evidence.tail), evidence.tail[-1] if evidence.tail else ""
    user = f"{os.getuid()}:{os.getgid()}"  # the container has the same user
    where = Where(container=evidence.kind == "container", directory=evidence.directory, user=user)
    words = "Bus error (core dumped)" if name == "SIGBUS" else "\n".join(evidence.tail)
    hint = hint_for(words, where) if trace or name else ""
    text = "" if trace is None else f": {trace.text} ({trace.place})"
    lasting = (trace is not None and trace.type in _NOT_FOUND) or _NO_PROGRAM.match(last)
    if lasting and not sounds_transient(words):
        return Classification(
            Outcome.NOT_RETRYABLE, f"{_exit_text(code, name)}{text or f': {last}'}", hint or _SEE_LOGS
        )
    return Classification(Outcome.USER_ERROR, f"{_exit_text(code, name)}{text}", hint or _SEE_LOGS)


def _disk(evidence: Evidence, message: str) -> Classification | None:
    exited = evidence.records.exited
    if exited is not None and exited.disk_full:
        missing = NO_INODES if NO_INODES in message else "no space left"
        return Classification(
            Outcome.DISK_FULL,
            f"{missing} on the disk of the checkpoints: {message}",
            f"{'remove files' if missing == NO_INODES else 'free space'} there; "
            "the trial then continues from its newest checkpoint",
        )
    if _exit(evidence)[0] == ExitCode.INFRASTRUCTURE:
        return Classification(
            Outcome.INFRASTRUCTURE, f"the disk under the run failed: {message}", "check that disk"
        )
    return None


def _container_died(evidence: Evidence) -> Classification:
    """Classify the end of a run that wrote no final record."""
    code, name = _exit(evidence)
    if evidence.observed.reason in _BY_THE_RUNTIME or code is None:
        return _ended_by_the_runtime(evidence)
    if evidence.records.unreadable:
        return Classification(
            Outcome.USER_ERROR,
            f"the records of the run cannot be read: {evidence.records.unreadable}",
            "change the code of the trial so that it does not write this file",
        )
    if code in {ExitCode.STARTED_AGAIN, ExitCode.INFRASTRUCTURE}:
        return _supervisor_left(evidence, code)
    began = evidence.records.started
    outside = code == _HOST_DOWN or (name is not None if began else name in _FROM_OUTSIDE)
    if not began and (not outside or any(_WRONG_MACHINE in line for line in evidence.tail)):
        return _never_began(evidence, code, name)
    if outside:
        why = f"killed from outside by {name}" if name else "the host or the engine went down"
        return Classification(Outcome.INFRASTRUCTURE, why)
    return Classification(Outcome.USER_ERROR, _exit_text(code, name), _SEE_LOGS)


def _ended_by_the_runtime(evidence: Evidence) -> Classification:
    """Classify a run that its runtime has ended or lost."""
    observed = evidence.observed
    if observed.reason not in _BY_THE_RUNTIME:
        why = f"was lost: {observed.message}" if observed.message else "was removed while it ran"
        return Classification(Outcome.LOST, f"the {evidence.kind} {why}")
    words = f": {observed.message}" if observed.message else ""
    return Classification(Outcome.INFRASTRUCTURE, f"the {evidence.kind} was {observed.reason.value}{words}")


def _supervisor_left(evidence: Evidence, code: int) -> Classification:
    """Classify the exit of a supervisor that could not run the worker."""
    if code == ExitCode.STARTED_AGAIN:
        why = f"the {evidence.kind} was started a second time, e.g. by `docker restart`; a run starts once"
        return Classification(Outcome.INFRASTRUCTURE, why)
    why = "the harness could not write to the run's folder"
    return Classification(Outcome.INFRASTRUCTURE, why, "check that disk")


def _never_began(evidence: Evidence, code: int, name: str | None) -> Classification:
    """Classify a run whose image cannot run the harness."""
    words = next((line for line in reversed(evidence.tail) if line.strip()), "")
    why = evidence.observed.message or f"{_exit_text(code, name)}{f': {words}' if words else ''}"
    return Classification(
        Outcome.NOT_RETRYABLE,
        f"the {evidence.kind} could not run the harness: {why}",
        "check environment_variables and bind_mounts; "
        "the image needs Python 3.10 or newer as python3, of this machine's architecture",
    )


def _exit(evidence: Evidence) -> tuple[int | None, str | None]:
    """Return the worker's exit code and signal if the supervisor wrote them, else the container's."""
    exited = evidence.records.exited
    if exited is not None:
        return exited.code, exited.signal
    code = evidence.observed.exit_code
    return code, _signal_of(code) if code is not None else None


def _signal_of(code: int) -> str | None:
    """Return the signal of a shell exit code 128 + n."""
    try:
        return signal.Signals(code - 128).name
    except ValueError:
        return None


def _died_of(number: signal.Signals) -> int:
    return 128 + number


def _exit_text(code: int | None, name: str | None) -> str:
    return f"ended by {name}" if name else f"ended with exit code {code}"
