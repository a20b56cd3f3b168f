"""Runs the trials of an experiment on this host, one after the other, without a container.

Folders, events and checkpoints are those of any other experiment. However this process ends, those of a run
end within a bound: the supervisor of a run notices that its parent is gone.
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
from detbuild.store.files import file_errors
from detbuild.store.follow import ExperimentTail
from detbuild.store.state import ExperimentState, load
from detbuild.store.states import StopVerb
from detbuild.store.submitted import config_of
from determined._run_info import PARENT_VARIABLE, RUN_DIR_VARIABLE
from determined.exec import ENTRY
from determined.exec._watch import KILL_ALL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from detbuild.events import Emit
    from detbuild.store.folder import ExperimentFolder
    from detbuild.store.requests import Verb
    from determined._run_info import RunInfo

_POLL = 0.05  # seconds
_GRACE = 30.0  # seconds to checkpoint and leave for a run whose detbuild was told to end, or is gone
_KILLING = 10.0  # seconds in which a supervisor ends the processes of its run
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
    """Train to the end or a pause, in processes of this host; Ctrl-C cancels, twice kills.

    SIGTERM and SIGHUP cancel too, and kill after `grace` seconds.

    Args:
        folder: Of the experiment; the caller holds its lease.
        environ: For the processes.
        emit: Told of all that happens.
        lease_descriptor: Holds the lease; the processes inherit it.
        since: The number of the request that it goes on by; what was before is not told again.
        grace: Seconds to checkpoint and leave for a run whose detbuild was told to end, or is gone.
    """
    events = ExperimentTail(folder, since=since)
    search, config = LocalSearch(folder), config_of(folder)
    environ = {
        **_of_this_python({**environ, **variables(config)}),
        PARENT_VARIABLE: f"{os.getpid()}:{grace:g}",
    }
    with _heard(_FROM_OUTSIDE) as outside:
        while (info := search.next_run()) is not None:
            process = _start(folder, info, environ, lease_descriptor)
            search.created(info)
            watch = _Watch(search, info, process, outside, grace=grace, patience=patience(config))
            watch.until_ended(lambda: events.emit(emit))
            if process.returncode < 0:  # nothing else was left to end what the run has started
                end_processes(info.run_dir)
            code = process.returncode
            search.ended(info, exit_code=code if code >= 0 else 128 - code)
    events.emit(emit)
    return load(folder)


@contextmanager
def _heard(numbers: Sequence[signal.Signals]) -> Iterator[list[int]]:
    """Collect signals while the block runs, but those that are ignored; only a main thread can."""
    came: list[int] = []
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, lambda one, _frame: came.append(one))
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _of_this_python(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment in which `python3` is this one, also where its virtual environment is not activated."""
    directory = str(Path(sys.executable).parent)
    return {**environ, "PATH": os.pathsep.join(filter(None, (directory, environ.get("PATH", os.defpath))))}


def run_here(folder: ExperimentFolder, train: Callable[[RunInfo], int], emit: Emit) -> ExperimentState:
    """Train in this very process: `train` is told what any run is told, and returns the run's exit code.

    Events are emitted from a thread of their own while it trains, which also has the training end by SIGTERM
    when somebody asks for that. The caller holds the experiment's lease.
    """
    search = LocalSearch(folder)
    with _telling(folder, emit):
        while (info := search.next_run()) is not None:
            search.created(info)
            search.ended(info, exit_code=train(info))
    return load(folder)


@contextmanager
def _telling(folder: ExperimentFolder, emit: Emit) -> Iterator[None]:
    """Emit the events of an experiment while the block runs, and those that are left after it."""
    events, over, forwarder = ExperimentTail(folder), threading.Event(), _StopForwarder(folder)

    def tell() -> None:
        while not over.wait(_POLL):
            events.emit(emit)
            forwarder.poll()

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()
        events.emit(emit)


class _StopForwarder:
    """Passes on what is asked of a run in this process: by SIGTERM, once there is who takes it.

    The journal is the training thread's own, so this one only looks who asks; that one heeds it.
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
            stdout=subprocess.DEVNULL,  # it is in the run's folder
            stderr=log,
            pass_fds=(lease_descriptor,),  # while it lives the experiment is held, whatever becomes of us
            start_new_session=True,  # Ctrl-C is for us
        )


class _Watch:
    """One run: what happens is told until its process has ended, and what is asked of it is forwarded."""

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

    def until_ended(self, tell: Callable[[], None]) -> None:
        while self._process.poll() is None:
            try:
                tell()
                self._hear()
                self._forward(self._search.poll(self._info))
                time.sleep(_POLL)
            except KeyboardInterrupt:  # noqa: PERF203  (it may come at any time, and is a request)
                self._ask("kill" if self._sent else "cancel")

    def _hear(self) -> None:
        """A signal from outside cancels, a second one or the end of the grace kills."""
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
        """Forward a stop: the supervisor saves and leaves, or ends all processes of the run."""
        now = time.monotonic()
        if stop and stop != self._sent:
            self._sent, self._sent_at = stop, now
            self._process.send_signal(KILL_ALL if stop == StopVerb.KILL else signal.SIGTERM)
        elif stop == StopVerb.KILL and now - self._sent_at > _KILLING:
            self._process.kill()
        elif stop and stop != StopVerb.KILL and now - self._sent_at > self._patience:
            self._sent_at = math.inf
            self._process.send_signal(KILL_ALL)  # as a container is killed then
