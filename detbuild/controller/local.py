"""Runs the trials of an experiment on this host, one after the other, without a container.

Folders, events and checkpoints are as in any other experiment. However this process ends, the processes of a
run end in bounded time: the run's supervisor detects that its parent has died.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from detbuild.controller.localsearch import LocalSearch, end_processes
from detbuild.launch.plan import grace as patience
from detbuild.launch.plan import variables
from detbuild.store.experiment_dir import config_of
from detbuild.store.files import file_errors
from detbuild.store.follow import ExperimentTail
from detbuild.store.state import ExperimentState, StopVerb, load
from determined._run_info import PARENT_VARIABLE, RUN_DIR_VARIABLE
from determined.exec import ENTRY
from determined.exec._watch import KILL_ALL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from detbuild.events import Emit
    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.journal import Verb
    from determined._run_info import RunInfo

_POLL = 0.05  # seconds
_GRACE = 30.0  # seconds for a run to checkpoint and exit after detbuild was stopped or has died
_KILLING = 10.0  # seconds for a supervisor to end the processes of its run
_FROM_OUTSIDE = (signal.SIGTERM, signal.SIGHUP)  # a time limit, a service that stops, a terminal that closes


def run_local(
    folder: ExperimentFolder,
    environ: Mapping[str, str],
    emit: Emit,
    *,
    lease_descriptor: int,
    since: int = 0,
    grace: float = _GRACE,
) -> ExperimentState:
    """Train to the end or a pause in processes of this host; Ctrl-C cancels, a second one kills.

    SIGTERM and SIGHUP cancel too, and kill after `grace` seconds.

    Args:
        folder: The experiment; the caller holds its lease.
        environ: Environment of the processes.
        emit: Receives the events.
        lease_descriptor: Holds the lease; the processes inherit it.
        since: Number of the request that continued it; earlier events are skipped.
        grace: Seconds for a run to checkpoint and exit after detbuild was stopped or has died.
    """
    events = ExperimentTail(folder, since=since)
    search, config = LocalSearch(folder), config_of(folder)
    environ = {
        **_of_this_python({**environ, **variables(config)}),
        PARENT_VARIABLE: f"{os.getpid()}:{grace:g}",
    }
    with _collected(_FROM_OUTSIDE) as outside:
        while (info := search.next_run()) is not None:
            process = _start(folder, info, environ, lease_descriptor)
            search.created(info)
            watch = _Watch(search, info, process, outside, grace=grace, patience=patience(config))
            watch.until_ended(lambda: events.emit(emit))
            if process.returncode < 0:  # the supervisor was killed and ended nothing itself
                end_processes(info.run_dir)
            code = process.returncode
            search.ended(info, exit_code=code if code >= 0 else 128 - code)
    events.emit(emit)
    return load(folder)


@contextmanager
def _collected(numbers: Sequence[signal.Signals]) -> Iterator[list[int]]:
    """Collect signals while the block runs, except ignored ones; only in the main thread."""
    received: list[int] = []
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, lambda one, _frame: received.append(one))
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _of_this_python(environ: Mapping[str, str]) -> dict[str, str]:
    """Put this Python first in PATH, even if its virtual environment is not activated."""
    directory = str(Path(sys.executable).parent)
    return {**environ, "PATH": os.pathsep.join(filter(None, (directory, environ.get("PATH", os.defpath))))}


def run_here(folder: ExperimentFolder, train: Callable[[RunInfo], int], emit: Emit) -> ExperimentState:
    """Train in this process: `train` receives the run's info and returns its exit code.

    A background thread emits events, and sends SIGTERM to this process when a stop is requested. The caller
    holds the experiment's lease.
    """
    search = LocalSearch(folder)
    with _emitting(folder, emit):
        while (info := search.next_run()) is not None:
            search.created(info)
            search.ended(info, exit_code=train(info))
    return load(folder)


@contextmanager
def _emitting(folder: ExperimentFolder, emit: Emit) -> Iterator[None]:
    """Emit the events of an experiment while the block runs, and the rest after it."""
    events, over, forwarder = ExperimentTail(folder), threading.Event(), _StopForwarder(folder)

    def emit_events() -> None:
        while not over.wait(_POLL):
            events.emit(emit)
            forwarder.poll()

    emitter = threading.Thread(target=emit_events, daemon=True)
    emitter.start()
    try:
        yield
    finally:
        over.set()
        emitter.join()
        events.emit(emit)


class _StopForwarder:
    """A forwarder of stop requests to a run in this process: SIGTERM, once a handler is installed.

    Only the training thread writes the journal, so this thread only reads requests; that one applies them.
    """

    def __init__(self, folder: ExperimentFolder) -> None:
        self._inbox = folder.inbox()
        self._not_ours = signal.getsignal(signal.SIGTERM)
        self._asked = False

    def poll(self) -> None:
        self._asked |= any(request.verb in {"kill", "cancel", "pause"} for request in self._inbox.after(0))
        if self._asked and signal.getsignal(signal.SIGTERM) != self._not_ours:
            self._asked = False
            os.kill(os.getpid(), signal.SIGTERM)


def _start(
    folder: ExperimentFolder, info: RunInfo, environ: Mapping[str, str], lease_descriptor: int
) -> subprocess.Popen[bytes]:
    with file_errors(folder.log_file), folder.files.append(folder.log_file.name) as log:
        return subprocess.Popen(
            [sys.executable, str(ENTRY)],
            env={**environ, RUN_DIR_VARIABLE: info.run_dir},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # the run's folder has it
            stderr=log,
            pass_fds=(lease_descriptor,),  # it holds the lease even if this process dies
            start_new_session=True,  # Ctrl-C is for this process only
        )


class _Watch:
    """One run: forwards requests to its process and emits events until it ends."""

    def __init__(
        self,
        search: LocalSearch,
        info: RunInfo,
        process: subprocess.Popen[bytes],
        outside: Sequence[int],
        *,
        grace: float,
        patience: float,
    ) -> None:
        self._search, self._info, self._process = search, info, process
        self._outside, self._grace, self._patience = outside, grace, patience
        self._sent, self._asked = StopVerb.NONE, ""
        self._sent_at = self._asked_at = 0.0

    def until_ended(self, emit: Callable[[], None]) -> None:
        while self._process.poll() is None:
            try:
                emit()
                self._check_signals()
                self._forward(self._search.poll(self._info))
                time.sleep(_POLL)
            except KeyboardInterrupt:  # noqa: PERF203  (it may come at any time, and is a request)
                self._ask("kill" if self._sent else "cancel")

    def _check_signals(self) -> None:
        """Cancel on an external signal; kill on a second one or at the end of the grace period."""
        if self._outside and not self._asked:
            self._ask("cancel")
        elif self._asked == "cancel" and (
            len(self._outside) > 1 or (self._outside and time.monotonic() - self._asked_at > self._grace)
        ):
            self._ask("kill")

    def _ask(self, verb: Verb) -> None:
        self._asked, self._asked_at = verb, time.monotonic()
        self._search.journaled.folder.request(verb)

    def _forward(self, stop: StopVerb) -> None:
        """Forward a stop: the supervisor checkpoints and exits, or kills the run."""
        now = time.monotonic()
        if stop and stop != self._sent:
            self._sent, self._sent_at = stop, now
            self._process.send_signal(KILL_ALL if stop == StopVerb.KILL else signal.SIGTERM)
        elif stop == StopVerb.KILL and now - self._sent_at > _KILLING:
            self._process.kill()
        elif stop and stop != StopVerb.KILL and now - self._sent_at > self._patience:
            self._sent_at = math.inf
            self._process.send_signal(KILL_ALL)  # as a container would be killed
