"""The parent of a run's worker, PID 1 in a container: starts it, stores its output, records its end.

A run starts only once: a container that is started again exits at once, and the next run continues.
"""

from __future__ import annotations

import os
import platform
import signal
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from determined._contract.checkpoints import storage_error
from determined._contract.errors import StorageError
from determined._contract.records import Ended, Exited, ExitReason, Record, Started
from determined._contract.run_info import (
    CONTRACT,
    EVENTS_FILE,
    PARENT_VARIABLE,
    RUN_DIR_VARIABLE,
    RUN_FILE,
    STDERR_FILE,
    STDOUT_FILE,
    ExitCode,
    RunInfo,
    names_trial,
)
from determined._run.events import EndedCheck, EventFile, announce_spare, begin
from determined._run.exit import adopt_orphans
from determined._run.memory import oom_kills
from determined._version import __version__
from determined.exec._process import CappedFile, Limits, Signals, Stream, Watch, Worker, launch

if TYPE_CHECKING:
    from collections.abc import MutableMapping

_NOT_FOUND = {126, 127}  # sh's codes for a command that is not executable, or not found
_TERMINATED = {-signal.SIGTERM, 128 + signal.SIGTERM}  # the latter is sh's code for it


def main() -> int:
    """Run the worker of the run folder in the environment; return the exit code of the run."""
    signals = Signals()
    try:
        info = RunInfo.from_environ(os.environ)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return _fail(f"cannot read {RUN_FILE} in {os.environ[RUN_DIR_VARIABLE]}: {error!r}")
    if info is None:
        return _fail(f"{RUN_DIR_VARIABLE} is not set: only detbuild can start this program")
    try:
        return _supervise(info, signals)
    except StorageError as error:
        return _fail(f"{error}\n  hint: {error.hint}")


def _fail(why: str, code: ExitCode = ExitCode.INFRASTRUCTURE) -> int:
    sys.stderr.write(f"error: {why}\n")
    return code


def _supervise(info: RunInfo, signals: Signals) -> int:
    if not begin(Path(info.run_dir) / EVENTS_FILE):
        return _fail(
            f"run {info.name} was started before; the next run continues from a checkpoint",
            ExitCode.STARTED_AGAIN,
        )
    adopt_orphans()
    killed_before = oom_kills()
    limits = _limits(info, os.environ)
    logs = _open_logs(info)
    with closing(_events(info)) as events:
        events.append(Started(os.getpid(), platform.python_version(), __version__, CONTRACT))
    try:
        worker = launch(info)
    except OSError as error:
        return _cannot_start(info, error)
    assert worker.process.stdout is not None
    assert worker.process.stderr is not None
    pipes = (worker.process.stdout, worker.process.stderr)
    streams = [Stream(*each) for each in zip(pipes, logs, (1, 2), strict=True)]
    watched = Watch(worker, streams, signals, limits)
    watched.run()
    status = worker.process.returncode
    full = status == ExitCode.INFRASTRUCTURE or any(log.disk_full for log in logs)
    with closing(_events(info)) as events:
        last = events.last
        if not isinstance(last, Ended):
            announce_spare(info, events)
        ended = inferred_end(worker, last, stop_asked=signals.stop_asked)
        if ended:
            events.append(ended)
        elif watched.overdue and isinstance(events.last, Ended):
            status = ExitCode.USER_ERROR if events.last.reason.failed else ExitCode.DONE
        events.append(_exited(status, oom_kills() - killed_before, disk_full=full))
    return _exit_code(status, ended)


def _limits(info: RunInfo, environ: MutableMapping[str, str]) -> Limits:
    """Return the limits of the run, and remove its parent from the environment."""
    ended = EndedCheck(Path(info.run_dir) / EVENTS_FILE, info.name)
    is_trial = isinstance(info.entrypoint, str) and names_trial(info.entrypoint)
    parent, _, grace = environ.pop(PARENT_VARIABLE, "0:0").partition(":")
    return Limits(
        exit_timeout=info.exit_timeout,
        work_done=ended.has_ended if is_trial else lambda: False,
        parent=int(parent),
        grace=float(grace),
    )


def inferred_end(worker: Worker, last: Record | None, *, stop_asked: bool) -> Ended | None:
    """Infer why the worker ended without a record of its own; return None if its status suffices."""
    status = worker.process.returncode
    if isinstance(last, Ended):
        return None
    if stop_asked and status in _TERMINATED:
        return Ended(ExitReason.PREEMPTED, message="ended by SIGTERM, without a new checkpoint")
    if hook := worker.failed_hook():
        return None if stop_asked else _hook_failed(hook, status)
    if worker.is_trial:
        return _exited_early() if status == 0 else None
    return _of_program(worker, stop_asked=stop_asked)


def _of_program(worker: Worker, *, stop_asked: bool) -> Ended | None:
    status = worker.process.returncode
    if status == 0:
        return Ended(ExitReason.PREEMPTED if stop_asked else ExitReason.COMPLETED)
    if worker.in_shell and status in _NOT_FOUND:
        return Ended(
            ExitReason.NOT_RETRYABLE,
            message=f"the shell cannot run the entrypoint (exit code {status})",
            hint="check the command in `entrypoint`; it runs with `sh -c` in the context directory",
        )
    return None


def _hook_failed(hook: str, status: int) -> Ended:
    how = f"by {_signal_name(-status)}" if status < 0 else f"with exit code {status}"
    return Ended(
        ExitReason.ERROR,
        message=f"{hook} ended {how} before the entrypoint was started",
        hint="see the last lines of its output; all of its commands must succeed",
        failure=f"{hook} ended {how}",
    )


def _exited_early() -> Ended:
    return Ended(
        ExitReason.ERROR,
        message="the trial's process ended with exit code 0 before the trial was done",
        hint="do not call os._exit: return from the trial's methods, or raise",
    )


def _cannot_start(info: RunInfo, error: OSError) -> int:
    ended = Ended(
        ExitReason.NOT_RETRYABLE,
        message=f"cannot start the entrypoint: {error.filename or ''}: {error.strerror}",
        hint="check `entrypoint`: a list is a program with its arguments, run in the context directory",
    )
    sys.stderr.write(f"error: {ended.message}\n  hint: {ended.hint}\n")
    with closing(_events(info)) as events:
        events.append(ended)
        events.append(Exited(ExitCode.NOT_RETRYABLE))
    return ExitCode.NOT_RETRYABLE


def _exited(status: int, kills: int, *, disk_full: bool) -> Exited:
    if status < 0:
        return Exited(None, _signal_name(-status), kills, disk_full)
    return Exited(status, None, kills, disk_full)


def _exit_code(status: int, ended: Ended | None) -> int:
    if status < 0:
        return 128 - status
    return ExitCode.USER_ERROR if status == 0 and ended and ended.reason.failed else status


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _events(info: RunInfo) -> EventFile:
    return EventFile(Path(info.run_dir) / EVENTS_FILE, info.name)


def _open_logs(info: RunInfo) -> tuple[CappedFile, CappedFile]:
    folder = Path(info.run_dir)
    try:
        return (
            CappedFile(folder / STDOUT_FILE, info.output_limit),
            CappedFile(folder / STDERR_FILE, info.output_limit),
        )
    except OSError as error:
        raise storage_error("output", folder, error.errno or 0) from error
