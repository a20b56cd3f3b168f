"""Runs trials on this host without a container, one at a time: as processes, or as calls in this process.

However this process ends, the processes of a run end in bounded time: the supervisor of a run detects that
its parent has died. Runs take no slots of the host's queue.
"""

from __future__ import annotations

import os
import queue
import select
import signal as signals
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from detbuild.errors import EngineError
from detbuild.runtime.limits import local_warnings
from detbuild.runtime.protocol import (
    Observation,
    Phase,
    Placement,
    Reason,
    Refused,
    RunPaths,
    Waiting,
    require_one_host,
)
from detbuild.store.experiment_dir import checkpoint_storage
from detbuild.store.files import file_errors
from detbuild.store.logs import tail
from determined._contract.run_info import ENTRY, KILL_ALL, PARENT_VARIABLE, RUN_DIR_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.config.yaml import KeyPath
    from detbuild.events import Warned
    from detbuild.runtime.protocol import Demand, RunKey, RunSpec, Signal
    from detbuild.store.experiment_dir import ExperimentFolder
    from determined._contract.run_info import RunInfo

GRACE: Final = 30.0  # seconds for a run to checkpoint and exit after detbuild was stopped or has died
_SCANS: Final = 50  # scans for remaining processes
_DYING: Final = 10_000  # milliseconds for the kernel to end one; it takes longer only if a disk hangs
_LEFT: Final = "detbuild ended before it"
_FAILED: Final = 1  # exit code of a call that raised


class _OneAtATime:
    """What both kinds have in common: their folders, and a single place."""

    observe_interval = 0.0  # an observation costs nothing

    def __init__(self, folder: ExperimentFolder) -> None:
        self._folder = folder
        self._created: dict[RunKey, RunSpec] = {}

    @property
    def kind(self) -> Literal["process"]:
        return "process"

    def check(self, config: ExperimentConfig, place: Callable[[KeyPath], str]) -> tuple[Warned, ...]:
        """Return warnings about what only a container has."""
        del place
        return tuple(local_warnings(config))

    def paths(self, config: ExperimentConfig, folder: ExperimentFolder, key: RunKey) -> RunPaths:
        storage = checkpoint_storage(config, folder).on_host or folder.checkpoints
        run_dir = folder.run(key.trial_id, key.run).path
        return RunPaths(str(run_dir), folder.header().context_dir, str(storage))

    @contextmanager
    def place(self, demand: Demand) -> Iterator[Placement | Waiting]:
        """Let one run go at a time."""
        busy = any(self._is_open(key) for key in self._created if key != demand.key)
        yield Waiting("", retry_in=0.0) if busy else Placement()

    def create(self, spec: RunSpec) -> str:
        require_one_host(spec)
        self._created.setdefault(spec.key, spec)
        return ""

    def observe(self, key: RunKey) -> Observation:
        phase = self._phase(key)
        if phase is not Phase.ENDED:
            return Observation(phase=phase)
        return Observation(phase=Phase.ENDED, exit_code=self._exit_code(key))

    def output_tail(self, key: RunKey, lines: int) -> tuple[str, ...]:
        return tail(self._folder.run(key.trial_id, key.run))[-lines:]

    def remove(self, home_id: str, experiment_id: int, *, keep: Collection[RunKey] = ()) -> None:
        for key in [key for key in self._created if key not in keep]:
            if (key.home_id, key.experiment_id) == (home_id, experiment_id):
                self._end(key)
                self._forget(key)

    def _forget(self, key: RunKey) -> None:
        del self._created[key]

    def _is_open(self, key: RunKey) -> bool:
        return self._phase(key) in {Phase.CREATED, Phase.RUNNING}

    def _phase(self, key: RunKey) -> Phase:
        raise NotImplementedError

    def _exit_code(self, key: RunKey) -> int:
        raise NotImplementedError

    def _end(self, key: RunKey) -> None:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class SupervisorSpec:
    """A process to start."""

    command: tuple[str, ...]
    env: Mapping[str, str]


class ProcessRuntime(_OneAtATime):
    """Processes of one experiment.

    Args:
        folder: The experiment.
        environ: Environment of the processes.
        lease_descriptor: Holds the experiment's lease; the processes inherit it. None: nothing is started.
        grace: Seconds for a run to checkpoint and exit after this process has died.
    """

    def __init__(
        self,
        folder: ExperimentFolder,
        environ: Mapping[str, str] | None = None,
        *,
        lease_descriptor: int | None = None,
        grace: float = GRACE,
    ) -> None:
        super().__init__(folder)
        self._environ = dict(environ or {})
        self._lease, self._grace = lease_descriptor, grace
        self._processes: dict[RunKey, subprocess.Popen[bytes]] = {}
        self._killed: set[RunKey] = set()

    def render(self, spec: RunSpec) -> SupervisorSpec:
        """Return the supervisor that `start` starts."""
        require_one_host(spec)
        parent = {PARENT_VARIABLE: f"{os.getpid()}:{self._grace:g}"}
        env = {**_of_this_python({**self._environ, **spec.env}), **parent}
        return SupervisorSpec((sys.executable, str(ENTRY)), env)

    def start(self, key: RunKey) -> bool | Refused:
        if key not in self._created:
            return _not_created(key)
        if key not in self._processes:
            self._processes[key] = self._supervisor(self._created[key])
        return True

    def observe(self, key: RunKey) -> Observation:
        """Observe the supervisor; whatever it left behind is ended."""
        if key not in self._created:
            end_processes(str(self._folder.run(key.trial_id, key.run).path))
            return Observation(phase=Phase.GONE, reason=Reason.LOST, message=_LEFT)
        process = self._processes.get(key)
        if process is not None and (process.poll() or 0) < 0:  # it was killed and ended nothing itself
            self._end(key)
        return super().observe(key)

    def signal(self, key: RunKey, signal: Signal) -> None:
        """Send a signal to the supervisor, which kills the run on SIGKILL; a second one kills both."""
        process = self._processes.get(key)
        if process is None or process.poll() is not None:
            return
        if signal == "SIGTERM":
            process.send_signal(signals.SIGTERM)
        elif key not in self._killed:
            self._killed.add(key)
            process.send_signal(KILL_ALL)
        else:
            self._end(key)

    def close(self) -> None:
        """End the runs that are left."""
        for key in self._processes:
            self._end(key)

    def _supervisor(self, spec: RunSpec) -> subprocess.Popen[bytes]:
        assert self._lease is not None, "this runtime starts nothing"
        log_file = self._folder.log_file
        supervisor = self.render(spec)
        with file_errors(log_file), self._folder.files.append(log_file.name) as log:
            return subprocess.Popen(
                supervisor.command,
                env=supervisor.env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # the run's folder has it
                stderr=log,
                pass_fds=(self._lease,),  # it holds the lease even if this process dies
                start_new_session=True,  # Ctrl-C is for this process only
            )

    def _phase(self, key: RunKey) -> Phase:
        process = self._processes.get(key)
        if process is None:
            return Phase.CREATED
        return Phase.RUNNING if process.poll() is None else Phase.ENDED

    def _exit_code(self, key: RunKey) -> int:
        code = self._processes[key].returncode
        return code if code >= 0 else 128 - code

    def _end(self, key: RunKey) -> None:
        process = self._processes.get(key)
        code = process.poll() if process is not None else 0
        if process is None or (code is not None and code >= 0):
            return  # a supervisor that exits has ended the processes of the run
        process.kill()
        process.wait()
        end_processes(self._created[key].info.run_dir)

    def _forget(self, key: RunKey) -> None:
        super()._forget(key)
        self._processes.pop(key, None)
        self._killed.discard(key)


def _of_this_python(environ: Mapping[str, str]) -> dict[str, str]:
    """Put this Python first in PATH, even if its virtual environment is not activated."""
    directory = str(Path(sys.executable).parent)
    return {**environ, "PATH": os.pathsep.join(filter(None, (directory, environ.get("PATH", os.defpath))))}


@dataclass(slots=True)
class _Call:
    """A run that was started; `exit_code` is None until it has ended."""

    info: RunInfo
    exit_code: int | None = None
    terminate: bool = False  # SIGTERM is to be sent once a handler is installed
    running: bool = False


class CallRuntime(_OneAtATime):
    """Runs that are calls in the thread that calls `serve`; any other thread observes them."""

    def __init__(self, folder: ExperimentFolder) -> None:
        super().__init__(folder)
        self._calls: dict[RunKey, _Call] = {}
        self._queue: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._not_ours = signals.getsignal(signals.SIGTERM)

    def serve(self, train: Callable[[RunInfo], int], interrupted: Callable[[], None]) -> None:
        """Call `train` for every run that is started, until `close`.

        Args:
            train: Gets the run's info and returns its exit code; what it raises ends this method.
            interrupted: Called at Ctrl-C while nothing is trained.
        """
        while (call := self._next(interrupted)) is not None:
            call.running = True
            code = _FAILED
            try:
                code = train(call.info)
            finally:
                call.running, call.exit_code = False, code

    def _next(self, interrupted: Callable[[], None]) -> _Call | None:
        while True:
            try:
                return self._queue.get()
            except KeyboardInterrupt:  # noqa: PERF203  (it may come at any time, and is a request)
                interrupted()

    def render(self, spec: RunSpec) -> RunInfo:
        """Return the argument of the call."""
        return spec.info

    def start(self, key: RunKey) -> bool | Refused:
        if key not in self._created:
            return _not_created(key)
        if key not in self._calls:
            self._calls[key] = call = _Call(self._created[key].info)
            self._queue.put(call)
        return True

    def observe(self, key: RunKey) -> Observation:
        if key not in self._created:
            return Observation(phase=Phase.GONE, reason=Reason.LOST, message=_LEFT)
        self._terminate(key)
        return super().observe(key)

    def signal(self, key: RunKey, signal: Signal) -> None:
        """Send SIGTERM to this process once, when the run has installed a handler; nothing is stronger."""
        del signal
        call = self._calls.get(key)
        if call is not None and call.exit_code is None:
            call.terminate = True
            self._terminate(key)

    def close(self) -> None:
        """Let `serve` return."""
        self._queue.put(None)

    def _terminate(self, key: RunKey) -> None:
        call = self._calls.get(key)
        if (
            call is not None
            and call.terminate
            and call.running
            and signals.getsignal(signals.SIGTERM) != self._not_ours
        ):
            call.terminate = False
            os.kill(os.getpid(), signals.SIGTERM)

    def _phase(self, key: RunKey) -> Phase:
        call = self._calls.get(key)
        if call is None:
            return Phase.CREATED
        return Phase.RUNNING if call.exit_code is None else Phase.ENDED

    def _exit_code(self, key: RunKey) -> int:
        code = self._calls[key].exit_code
        assert code is not None
        return code

    def _end(self, key: RunKey) -> None:
        """A call ends by itself."""

    def _forget(self, key: RunKey) -> None:
        super()._forget(key)
        self._calls.pop(key, None)


def _not_created(key: RunKey) -> Refused:
    return Refused(EngineError(f"run {key.run} of trial {key.trial_id} was not created"))


def end_processes(run_dir: str) -> None:
    """Kill the remaining processes of a run whose supervisor has died, found by its run directory."""
    for _ in range(_SCANS):
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
                signals.pidfd_send_signal(descriptor, signals.SIGKILL)
                ended = select.poll()
                ended.register(descriptor, select.POLLIN)
                ended.poll(_DYING)
                return True
        finally:
            os.close(descriptor)
    return False
