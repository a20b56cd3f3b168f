"""Runs an experiment on this host without containers, in the foreground."""

from __future__ import annotations

import math
import signal
import threading
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final

from detbuild.controller.checkpoints import finish_checkpoints
from detbuild.controller.loop import abandon, controller_of
from detbuild.controller.state import JournaledState, apply_pending_requests
from detbuild.errors import DetbuildError
from detbuild.runtime.process import GRACE, CallRuntime, ProcessRuntime
from detbuild.store.follow import ExperimentTail
from detbuild.store.journal import Verb
from detbuild.store.state import ExperimentState, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from detbuild.controller.loop import Controller
    from detbuild.events import Emit
    from detbuild.store.experiment_dir import ExperimentFolder
    from determined._contract.run_info import RunInfo

_POLL: Final = 0.05  # seconds
_LEFT: Final = "its process ended before the search did"
# Ctrl-C; a time limit, a service that stops; a terminal that closes.
_SIGNALS: Final = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
}


def run_local(
    folder: ExperimentFolder,
    environ: Mapping[str, str],
    emit: Emit,
    *,
    lease_descriptor: int,
    since: int = 0,
    grace: float = GRACE,
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
    events, interrupts = ExperimentTail(folder, since=since), _Interrupts(grace)
    runtime = ProcessRuntime(folder, environ, lease_descriptor=lease_descriptor, grace=grace)
    with closing(runtime), interrupts.collected():
        while True:
            try:
                for controller in _steps(controller_of(folder, runtime)):
                    events.emit(emit)
                    interrupts.apply(controller)
                break
            except KeyboardInterrupt:  # from a handler that is not ours: a new controller continues
                interrupts.add(signal.SIGINT)
    events.emit(emit)
    return load(folder)


def run_here(folder: ExperimentFolder, train: Callable[[RunInfo], int], emit: Emit) -> ExperimentState:
    """Train in this thread, without retries: `train` receives the run's info and returns its exit code.

    A background thread is the controller: it emits the events, and sends SIGTERM to this process when a stop
    is requested. The caller holds the experiment's lease. An exception of `train` leaves the experiment as it
    is, for `finish_pending`.
    """
    events, interrupts = ExperimentTail(folder), _Interrupts(GRACE)
    runtime, failures = CallRuntime(folder), list[DetbuildError]()
    left, done = threading.Event(), threading.Event()

    def control() -> None:
        try:
            for controller in _steps(controller_of(folder, runtime, retries=False)):
                events.emit(emit)
                interrupts.apply(controller)
                if left.is_set():
                    return
            done.set()
        except DetbuildError as error:
            failures.append(error)
        finally:
            runtime.close()

    thread = threading.Thread(target=control, name="controller", daemon=True)
    thread.start()
    try:
        runtime.serve(train, interrupts.add)
    except BaseException:
        left.set()
        raise
    finally:
        thread.join()
    if failures:
        raise failures[0]
    if not done.is_set():
        raise RuntimeError("the controller failed; its traceback is above")
    events.emit(emit)
    return load(folder)


def _steps(controller: Controller) -> Iterator[Controller]:
    """Yield the controller after each of its steps."""
    for _ in controller.steps(_POLL):
        yield controller


class _Interrupts:
    """Ctrl-C and signals to this process: the first one cancels the experiment, a second one kills it."""

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._received: list[int] = []
        self._applied = 0  # of those received
        self._cancelled = False
        self._kill_at = math.inf

    def add(self, number: int = signal.SIGINT) -> None:
        self._received.append(number)

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Collect signals while the block runs, except handled and ignored ones; only in the main thread."""
        before = {}
        if threading.current_thread() is threading.main_thread():
            for number, default in _SIGNALS.items():
                if signal.getsignal(number) is default:
                    before[number] = signal.signal(number, lambda one, _frame: self.add(one))
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def apply(self, controller: Controller) -> None:
        """Request what the signals since the last call stand for."""
        new, self._applied = self._received[self._applied :], len(self._received)
        for number in new:
            self._apply(number, controller)
        if time.monotonic() > self._kill_at:
            self._kill_at = math.inf
            controller.context.folder.request(Verb.KILL)

    def _apply(self, number: int, controller: Controller) -> None:
        state, folder = controller.context.state, controller.context.folder
        if state.began and not state.living:
            controller.manager.give_up()  # all that is left are uploads
        elif self._cancelled or state.stop:
            folder.request(Verb.KILL)
        else:
            self._cancelled = True
            folder.request(Verb.CANCEL)
            if number != signal.SIGINT:
                self._kill_at = time.monotonic() + self._grace


def finish_pending(folder: ExperimentFolder) -> None:
    """Journal how a local experiment ended whose process has died; the caller holds its lease."""
    journaled = JournaledState(folder=folder)
    apply_pending_requests(journaled)
    if journaled.state.over:
        finish_checkpoints(folder)
    elif not journaled.state.idle:
        abandon(folder, ProcessRuntime(folder), _LEFT)
