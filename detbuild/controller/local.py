"""Runs the trials of an experiment on this host, one after the other, without a container.

Search method, journal, folders and checkpoints are as in any other experiment. However this process ends, the
processes of a run end in bounded time: the run's supervisor detects that its parent has died.
"""

from __future__ import annotations

import math
import os
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from detbuild.controller.checkpoints import end_local, finish_checkpoints, restore_files
from detbuild.controller.policies import policies_of
from detbuild.controller.retry import End, Launch, ReportSegment, next_step
from detbuild.controller.search import Search, run_request
from detbuild.controller.state import JournaledState, apply_pending_requests, apply_requests, conclusion
from detbuild.controller.trial import RecordListener, apply_policies
from detbuild.runtime.outcome import Evidence, judge
from detbuild.runtime.plan import RunOwner, plan_run, variables
from detbuild.runtime.plan import grace as patience
from detbuild.runtime.protocol import Observation, Phase, RunPaths
from detbuild.search.registry import search_method
from detbuild.store import journal
from detbuild.store.experiment_dir import checkpoint_storage, config_of, search_config_of
from detbuild.store.files import file_errors
from detbuild.store.follow import ExperimentTail
from detbuild.store.journal import Verb
from detbuild.store.logs import tail
from detbuild.store.records import read_run
from detbuild.store.state import ExperimentState, State, StopVerb, load, stronger
from determined._contract.run_info import ENTRY, KILL_ALL, PARENT_VARIABLE, RUN_DIR_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from detbuild.events import Emit
    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.records import RunRecords
    from detbuild.store.state import TrialState
    from determined._contract.run_info import RunInfo

_POLL = 0.05  # seconds
_GRACE = 30.0  # seconds for a run to checkpoint and exit after detbuild was stopped or has died
_KILLING = 10.0  # seconds for a supervisor to end the processes of its run
_FROM_OUTSIDE = (signal.SIGTERM, signal.SIGHUP)  # a time limit, a service that stops, a terminal that closes
_ROUNDS = 50  # scans for remaining processes
_DYING = 10_000  # milliseconds for the kernel to end one; it takes longer only if a disk hangs
_LEFT = "its process ended before the search did"


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
    search, config = _LocalSearch(folder), config_of(folder)
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
                _end_processes(info.run_dir)
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
    search = _LocalSearch(folder)
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
        self._asked |= any(
            request.verb in {Verb.KILL, Verb.CANCEL, Verb.PAUSE} for request in self._inbox.after(0)
        )
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
        search: _LocalSearch,
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
                self._ask(Verb.KILL if self._sent else Verb.CANCEL)

    def _check_signals(self) -> None:
        """Cancel on an external signal; kill on a second one or at the end of the grace period."""
        if self._outside and not self._asked:
            self._ask(Verb.CANCEL)
        elif self._asked == Verb.CANCEL and (
            len(self._outside) > 1 or (self._outside and time.monotonic() - self._asked_at > self._grace)
        ):
            self._ask(Verb.KILL)

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


class _LocalSearch:
    """A source of runs, one after the other. Failed runs are not retried: the user sees why they failed."""

    def __init__(self, folder: ExperimentFolder) -> None:
        apply_pending_requests(JournaledState(folder=folder))
        self.journaled = JournaledState(folder=folder)
        self._config = config = config_of(folder)
        method = search_method(search_config_of(folder), Path(self.journaled.state.header.context_dir))
        self._search = Search(self.journaled, method, config)
        self._policies = policies_of(config)
        self._listener: RecordListener | None = None

    def next_run(self) -> RunInfo | None:
        """Return the info of the next run, or None if the experiment has ended or is paused."""
        state = self.journaled.state
        while not state.idle:
            apply_requests(self.journaled)
            if state.stop == StopVerb.PAUSE:
                self.journaled.record(journal.Paused())
                return None
            self._search.step()
            trial_id = next(iter(state.ready), None)
            trial = state.trials[trial_id] if trial_id is not None else None
            if trial is not None:
                info = self._further(trial)
                if info is not None:
                    return info
            elif state.living == 0 and (state.finishing or state.ending):
                end_local(self.journaled, conclusion(state))
            else:
                self._search.stalled()
        return None

    def created(self, info: RunInfo) -> None:
        """Journal that the process of a run was started."""
        self.journaled.record(journal.RunCreated(trial_id=info.trial_id, run=info.run, container=""))
        self._listener = RecordListener(
            self.journaled, self._search, self._policies, trial_id=info.trial_id, run=info.run
        )

    def poll(self, info: RunInfo) -> StopVerb:
        """Read the run's new records; return its stop verb, if any."""
        apply_requests(self.journaled)
        if self._listener is not None:
            self._listener.poll()
        return stronger(self.journaled.state.stop, self.journaled.state.trials[info.trial_id].stop)

    def ended(self, info: RunInfo, *, exit_code: int) -> None:
        """Journal how a run ended."""
        listener = self._listener
        if listener is None:
            raise RuntimeError("run ended without being created")
        apply_requests(self.journaled)
        listener.poll(over=True)
        trial = self.journaled.state.trials[info.trial_id]
        finished = _finished(self.journaled, trial, info.run, exit_code, listener.records)
        self.journaled.record(apply_policies(finished, listener.run))

    def _further(self, trial: TrialState) -> RunInfo | None:
        stop = stronger(self.journaled.state.stop, trial.stop)
        step = next_step(
            trial, stop=stop, needs_every_validation=self._search.needs_every_validation, max_restarts=0
        )
        match step:
            case Launch():
                return self._intend(trial)
            case End(state=name, why=why):
                self.journaled.record(journal.TrialFinished(trial_id=trial.id, state=name, why=why))
            case ReportSegment():
                self._search.segment_done(trial.id)
            case _:
                self._search.stalled()
        return None

    def _intend(self, trial: TrialState) -> RunInfo | None:
        folder, run = self.journaled.folder, len(trial.runs)
        request = run_request(self.journaled, trial, run)
        why = restore_files(self.journaled, request.checkpoints or request.source)
        if why:
            self.journaled.record(journal.TrialFinished(trial_id=trial.id, state=State.ERROR, why=why))
            return None
        header = self.journaled.state.header
        storage = checkpoint_storage(self._config, folder).on_host or folder.checkpoints
        paths = RunPaths(str(folder.run(trial.id, run).path), header.context_dir, str(storage))
        owner = RunOwner(home_id="", folder=folder, header=header, paths=paths)
        info = plan_run(self._config, request, owner).info
        folder.prepare_run(info)
        self.journaled.record(journal.RunIntended(trial_id=trial.id, run=run, segment=trial.segment))
        return info


def finish_pending(folder: ExperimentFolder) -> None:
    """Journal how a local experiment ended whose process has died; the caller holds its lease."""
    journaled = JournaledState(folder=folder)
    apply_pending_requests(journaled)
    if journaled.state.over:
        finish_checkpoints(folder)
    if journaled.state.idle:
        return
    for trial_id in tuple(journaled.state.running):
        trial = journaled.state.trials[trial_id]
        if trial.open_run is not None:
            _end_processes(str(folder.run(trial.id, trial.open_run.run).path))
            records = read_run(folder.run(trial.id, trial.open_run.run), over=True)
            journaled.record(_finished(journaled, trial, trial.open_run.run, None, records))
    if journaled.state.stop == StopVerb.PAUSE:
        journaled.record(journal.Paused())
        return
    for trial in tuple(journaled.state.trials.values()):
        if not trial.ended:
            stop = stronger(journaled.state.stop, trial.stop)
            step = next_step(trial, stop=stop, needs_every_validation=True, max_restarts=0)
            name, why = (step.state, step.why) if isinstance(step, End) else (State.ERROR, _LEFT)
            journaled.record(journal.TrialFinished(trial_id=trial.id, state=name, why=why))
    alone = journaled.state.trials and config_of(folder).searcher.name == "single"
    if journaled.state.finishing or journaled.state.ending or alone:
        end_local(journaled, conclusion(journaled.state))
    else:
        end_local(journaled, journal.ExperimentFinished(state=State.ERROR, why=_LEFT))


def _end_processes(run_dir: str) -> None:
    """Kill the remaining processes of a local run whose supervisor has died, found by its run directory."""
    for _ in range(_ROUNDS):
        processes = Path("/proc").glob("[0-9]*")  # allowed: a file of the kernel
        if not sum(_killed(process, run_dir) for process in processes):
            return


def _killed(process: Path, run_dir: str) -> bool:
    """Kill the process if it belongs to the run, and wait for its end; return whether it did."""
    variable = f"{RUN_DIR_VARIABLE}={run_dir}".encode()
    with suppress(OSError):
        descriptor = os.pidfd_open(int(process.name))  # so that a reused PID does not get the signal
        try:
            environ = (process / "environ").read_bytes()  # allowed: a file of the kernel
            if variable in environ.split(b"\0"):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                ended = select.poll()
                ended.register(descriptor, select.POLLIN)
                ended.poll(_DYING)
                return True
        finally:
            os.close(descriptor)
    return False


def _finished(
    journaled: JournaledState, trial: TrialState, run: int, exit_code: int | None, records: RunRecords
) -> journal.RunFinished:
    """Classify the end of a run; `exit_code` is None if it is unknown."""
    evidence = Evidence(
        records=records,
        observed=Observation(phase=Phase.ENDED, exit_code=exit_code),
        stop=stronger(journaled.state.stop, trial.stop),
        tail=tail(journaled.folder.run(trial.id, run)),
        kind="process",
        directory=journaled.state.header.context_dir,
    )
    finished = judge(evidence, trial_id=trial.id, run=run, restarts_left=0)
    return replace(finished, retry=finished.retry and finished.asked == StopVerb.PAUSE)
