"""One worker process of a run: starts it after the startup hooks, stores its output, and clears up after it.

The worker gets Determined's variables and a home directory. Its output is copied unchanged to files of
limited size and to the supervisor's own output; this never blocks or raises, whatever the worker prints and
even without a reader. Signals are forwarded, and processes that outlive the worker are killed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import pwd
import queue
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from determined._contract import run_info
from determined._contract.run_info import ENTRY, HOOK_FILE, HOST_HOOK, KILL_ALL, names_trial, private
from determined._run.exit import children, command_of, die_with_parent, has_variable, kill_children, reap
from determined._run.info import cluster_info

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from determined._contract.run_info import RunInfo

# Hooks run in the shell that becomes the worker, so that they can set its variables, limits and directory; in
# functions, so that they can use `set --`. A failing command ends them, as in Determined. A byte in the pipe
# marks the end of each hook.
_START = """
export DETBUILD_HOOK=1
_passed=$1 _host=$2 _own=$3
shift 3
_host_hook() { eval "$_host"; }
_own_hook() { . "$_own"; }
"""
HOOK_VARIABLE = "DETBUILD_HOOK"  # set in the processes that hooks start
_REST = f'unset {HOOK_VARIABLE}\nexec "$@"'
_ONE_HOOK = """
set -e
{name}
set +e
printf x >"/proc/self/fd/$_passed"
"""
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_GRACE = 3.0  # seconds that processes may outlive a worker that failed or was asked to stop
_NAMED_AFTER = 10.0  # seconds after which processes that delay the end are logged
_KILLING = 60.0  # seconds for the kernel to end killed processes; it takes longer only if a disk hangs
_POLL = 0.05  # seconds between polls after the worker has ended
_CHECK = 1.0  # seconds between polls before that
_EXITING = 30.0  # seconds after the timeout for a process to end itself, with a better message
_NAMED = 3  # processes in one line
_MIRROR_REST = 1.0  # seconds for a reader of our own output to read the rest
_BLOCK = 1 << 16
_LONGEST = 128 * 1024 - 1  # bytes of NAME=value; Linux starts no program with more (MAX_ARG_STRLEN)
_HARNESS = str(ENTRY.parent.parent)
_WAITING = 64  # pieces that are queued for a slow reader


@dataclass(frozen=True, slots=True)
class Worker:
    process: subprocess.Popen[bytes]
    is_trial: bool  # the harness's worker, not a user's script
    in_shell: bool  # so that only the process group is sure to contain the script's program
    hooks: tuple[str, ...]  # that run before the worker, in order
    passed: int | None  # read end of the pipe that counts ended hooks

    def send(self, number: int) -> None:
        """Forward a signal.

        Data loader workers of a trial must not get it: SIGTERM would kill them, and then the trial.
        """
        if self.process.returncode is not None:
            return
        if self.in_shell:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)

    def failed_hook(self) -> str:
        """Return the hook that failed before the worker started, or "". Call once, after the exit."""
        if self.passed is None:
            return ""
        os.set_blocking(self.passed, False)
        try:
            over = len(os.read(self.passed, len(self.hooks)))
        except BlockingIOError:
            over = 0
        return "".join(self.hooks[over : over + 1])


def launch(info: RunInfo) -> Worker:
    """Start the worker in the context directory, in its own session.

    Raises:
        OSError: the program or the directory is missing or unusable.
    """
    is_trial = isinstance(info.entrypoint, str) and names_trial(info.entrypoint)
    command, reader, writer = _command(info), None, None
    hooks = _hooks(info)
    if hooks:
        reader, writer = os.pipe()
        shell = shutil.which("bash") or "sh"  # hooks written for Determined may use bash syntax
        own = str(Path(info.context_dir) / HOOK_FILE)
        script = "".join((_START, *hooks.values(), _REST))
        command = [shell, "-c", script, "startup-hook", str(writer), info.startup_hook, own, *command]
    try:
        process = subprocess.Popen(
            command,
            cwd=info.context_dir,
            env=worker_environment(info, os.environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            pass_fds=() if writer is None else (writer,),
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509  (there is no other thread yet)
        )
    finally:
        if writer is not None:
            os.close(writer)
    in_shell = isinstance(info.entrypoint, str) and not is_trial
    return Worker(process, is_trial, in_shell, tuple(hooks), reader)


def _hooks(info: RunInfo) -> dict[str, str]:
    """Return the hooks to run, the host's first, each with its shell command."""
    hooks: dict[str, str] = {}
    if not info.run_hooks:
        return hooks
    if info.startup_hook:
        hooks[HOST_HOOK] = _ONE_HOOK.format(name="_host_hook")
    if (Path(info.context_dir) / HOOK_FILE).is_file():
        hooks[HOOK_FILE] = _ONE_HOOK.format(name="_own_hook")
    return hooks


def _command(info: RunInfo) -> list[str]:
    if isinstance(info.entrypoint, tuple):
        return list(info.entrypoint)
    if names_trial(info.entrypoint):
        return [sys.executable, str(ENTRY), "launch" if info.slots > 1 else "worker"]
    return ["sh", "-c", info.entrypoint]


class Signals:
    """Received signals, as bytes in a pipe: handlers do nothing, and no signal is lost."""

    def __init__(self) -> None:
        self.stop_asked = False
        self.kill_asked = False
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (*FORWARDED, KILL_ALL, signal.SIGCHLD):
            signal.signal(number, lambda _number, _frame: None)

    def fileno(self) -> int:
        return self._reader

    def take(self) -> list[int]:
        """Return the signals to forward since the last call."""
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._reader, _BLOCK)
            came = [number for number in data if number in FORWARDED]
            self.stop_asked |= signal.SIGTERM in came
            self.kill_asked |= KILL_ALL in data
            return came
        return []


class Stream:
    """One of the worker's two outputs, copied to its log file and to our own output."""

    def __init__(self, pipe: IO[bytes], file: CappedFile, fd: int) -> None:
        self.pipe = pipe
        self._file = file
        self._mirror = Mirror(fd)

    def pump(self) -> bool:
        """Copy available data; return False at the end of the stream."""
        data = os.read(self.pipe.fileno(), _BLOCK)
        self._file.write(data)
        if data:
            self._mirror.write(data)
        return bool(data)

    def add_line(self, text: str) -> None:
        """Add one of our own lines to the output."""
        data = f"detbuild: {text}\n".encode()
        self._file.write(data)
        self._mirror.write(data)

    def close(self) -> None:
        self.pipe.close()
        self._file.close()
        self._mirror.close(_MIRROR_REST)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Time limits of a run whose work is done, or whose parent is gone."""

    exit_timeout: float  # seconds for leftover processes and threads
    work_done: Callable[[], bool]  # whether a trial has written `ended`, after all of its code
    parent: int = 0  # PID of a local run's parent; 0 in a container
    grace: float = 0.0  # seconds to checkpoint and exit after the parent's death


class Watch:
    """Waits for one worker and everything it started."""

    def __init__(self, worker: Worker, streams: Sequence[Stream], signals: Signals, limits: Limits) -> None:
        self.overdue = False  # killed after `exit_timeout`, with its work done
        self._worker, self._streams = worker, streams
        self._signals, self._limits = signals, limits
        self._selector = selectors.DefaultSelector()
        self._orphaned_at = self._done_at = math.inf

    def run(self) -> None:
        """Return when the worker and all processes it started have ended."""
        with self._selector as selector:
            selector.register(self._signals, selectors.EVENT_READ)
            for stream in self._streams:
                selector.register(stream.pipe, selectors.EVENT_READ, stream)
            while self._worker.process.returncode is None:
                self._step(_CHECK)
                self._check(time.monotonic())
            self._clear()
        for stream in self._streams:
            stream.close()

    def _check(self, now: float) -> None:
        """Kill a run that is done or orphaned."""
        limits = self._limits
        if limits.parent and self._orphaned_at == math.inf and os.getppid() != limits.parent:
            self._orphaned_at, self._signals.stop_asked = now, True
            self._worker.send(signal.SIGTERM)
        if self._done_at == math.inf and limits.work_done():
            self._done_at = now
        overdue = now - self._done_at > limits.exit_timeout + _EXITING
        if overdue and not self.overdue and self._worker.process.returncode is None:
            self.overdue = True
            self._log_leftover("killed, since the trial is done")
        if self._signals.kill_asked or self.overdue or now - self._orphaned_at > limits.grace:
            kill_children()

    def _clear(self) -> None:
        """Wait for processes that outlive the worker, then kill them; read their last output."""
        began = now = time.monotonic()
        named, killed_at = False, math.inf
        while self._step(_POLL if now - began < _GRACE or killed_at < now else _CHECK):
            now = time.monotonic()
            self._check(now)
            if now - killed_at > _KILLING or (now - began > _GRACE and not any(children())):
                return  # or only a process outside of the run still has its output open
            if now - began > self._patience():
                if killed_at == math.inf:
                    self._log_leftover("killed, since the run has ended")
                    killed_at = now
                kill_children()
            elif not named and now - began > _NAMED_AFTER:
                named = True
                self._log_leftover(f"waiting at most {self._limits.exit_timeout:g} s (exit_timeout)")

    def _patience(self) -> float:
        """Seconds that processes may outlive the worker: more if it succeeded and started them itself."""
        signals = self._signals
        if signals.kill_asked or self._orphaned_at < math.inf:
            return 0.0
        if signals.stop_asked or self._worker.process.returncode or all(map(_is_of_hook, children())):
            return min(_GRACE, self._limits.exit_timeout)
        return self._limits.exit_timeout

    def _log_leftover(self, what: str) -> None:
        left = [command_of(pid) for pid in children()]
        if left and self._streams:
            more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
            self._streams[-1].add_line(f"{', '.join(left[:_NAMED])}{more} outlived the training: {what}")

    def _step(self, timeout: float) -> bool:
        """Handle output and signals; return whether a process or an output is still open."""
        for key, _ in self._selector.select(timeout):
            if isinstance(key.data, Stream) and not key.data.pump():
                self._selector.unregister(key.fileobj)
        for number in self._signals.take():
            self._worker.send(number)
        children_left = reap(self._worker.process)
        return children_left or len(self._selector.get_map()) > 1


def _is_of_hook(pid: int) -> bool:
    return has_variable(pid, HOOK_VARIABLE)


def worker_environment(info: RunInfo, base: Mapping[str, str]) -> dict[str, str]:
    """Return the worker's variables; `base` overrides those that are not Determined's.

    A value too long for Linux is left out: `det.get_cluster_info()` has all of them.
    """
    determined = _determined(info).items()
    added = {name: value for name, value in determined if len(f"{name}={value}".encode()) <= _LONGEST}
    return {**_defaults(base), **base, **_user(base), **_python_path(base), **added}


def _determined(info: RunInfo) -> dict[str, str]:
    facts = cluster_info(info)
    latest = {"DET_LATEST_CHECKPOINT": facts.latest_checkpoint} if facts.latest_checkpoint else {}
    return {
        "DET_CLUSTER_ID": facts.cluster_id,
        "DET_AGENT_ID": facts.agent_id,
        "DET_CONTAINER_ID": facts.container_id,
        "DET_RESOURCES_ID": facts.container_id,
        "DET_RESOURCES_TYPE": "docker-container",
        "DET_TASK_ID": facts.task_id,
        "DET_ALLOCATION_ID": facts.allocation_id,
        "DET_TASK_TYPE": facts.task_type,
        "DET_SLOT_IDS": json.dumps(facts.slot_ids),
        "DET_EXPERIMENT_ID": str(info.experiment_id),
        "DET_TRIAL_ID": str(info.trial_id),
        "DET_TRIAL_RUN_ID": str(info.run),
        "DET_TRIAL_SEED": str(info.trial_seed),
        "DET_EXPERIMENT_CONFIG": json.dumps(info.config),
        "DET_HPARAMS": json.dumps(info.hparams),
        "DET_STEPS_COMPLETED": str(facts.trial.steps_completed),
        "DET_WORKDIR": info.context_dir,
        "DET_RUN_DIR": info.run_dir,
        **latest,
    }


def _defaults(base: Mapping[str, str]) -> dict[str, str]:
    """Return defaults of Determined's images: unbuffered output, stacks of crashes, a fixed hash seed."""
    defaults = {
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
        "PYTHONHASHSEED": "0",
        "TF_CPP_MIN_LOG_LEVEL": "1",  # TensorFlow logs ten lines about its build at import
    }
    return {name: value for name, value in defaults.items() if name not in base}


def _user(base: Mapping[str, str]) -> dict[str, str]:
    """Return home and name, which many libraries need, for a numeric user without a passwd entry."""
    found: dict[str, str] = {}
    home = base.get("HOME", "")
    if home in {"", "/"} or not os.access(home, os.W_OK):
        made = Path(tempfile.gettempdir()) / f"home-{os.getuid()}"
        made.mkdir(mode=0o700, exist_ok=True)
        found["HOME"] = str(made)
    if "USER" not in base:
        found["USER"] = found["LOGNAME"] = _user_name()
    return found


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid{os.getuid()}"


def _python_path(base: Mapping[str, str]) -> dict[str, str]:
    """Keep `import determined` working if the experiment config sets PYTHONPATH."""
    path = base.get("PYTHONPATH", "")
    if not path or _HARNESS in path.split(os.pathsep) or Path(_HARNESS).name.endswith("-packages"):
        return {}
    return {"PYTHONPATH": f"{path}{os.pathsep}{_HARNESS}"}


class CappedFile:
    """A log file that keeps its first quarter and its newest output.

    When it is full, the middle is cut out: the head, one line with the number of lost bytes, and the newest
    quarter are written to a new file, which replaces the old one. Followers see another inode.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self.disk_full = False
        self._path = path
        self._limit = max(limit, run_info.LEAST_OUTPUT)
        self._keep = run_info.kept_output(limit)
        self._mark = b""
        self._dropped = 0
        self._lost = 0  # because the disk was full
        self._open()

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                written = os.write(self._fd, rest[: self._limit - self._size])
            except OSError as error:
                self._note(error)
                self._lost += len(rest)
                return
            self._size += written
            rest = rest[written:]
            if self._size >= self._limit:
                self._cut()

    def close(self) -> None:
        if self._lost:
            with contextlib.suppress(OSError):
                os.write(
                    self._fd, b"\n[detbuild: %d bytes of output are lost: the disk was full]\n" % self._lost
                )
        os.close(self._fd)

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size

    def _cut(self) -> None:
        gone = self._size - 2 * self._keep - len(self._mark)
        mark = run_info.cut_mark(self._dropped + gone)
        draft = self._path.with_name(f".{self._path.name}.tmp")
        try:
            with open(draft, "wb", opener=private) as file:
                file.write(os.pread(self._fd, self._keep, 0))
                file.write(mark)
                file.write(os.pread(self._fd, self._keep, self._size - self._keep))
            draft.replace(self._path)
        except OSError as error:
            self._note(error)
            self._forget_tail(draft)
            return
        os.close(self._fd)
        self._open()
        self._dropped += gone
        self._mark = mark

    def _forget_tail(self, draft: Path) -> None:
        """Truncate the file to its head if the disk has no space for a second file."""
        draft.unlink(missing_ok=True)
        self._dropped += self._size - self._keep - len(self._mark)
        os.ftruncate(self._fd, self._keep)
        self._size, self._mark = self._keep, b""

    def _note(self, error: OSError) -> None:
        self.disk_full |= error.errno in {errno.ENOSPC, errno.EDQUOT}


class Mirror:
    """Copies output to one of our own streams; drops what a slow reader does not accept."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._pieces: queue.Queue[bytes | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._copy, daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        with contextlib.suppress(queue.Full):
            self._pieces.put_nowait(data)

    def close(self, timeout: float) -> None:
        """Wait at most `timeout` seconds for the reader."""
        with contextlib.suppress(queue.Full):
            self._pieces.put(None, timeout=timeout)
            self._thread.join(timeout)

    def _copy(self) -> None:
        while (piece := self._pieces.get()) is not None:
            rest = memoryview(piece)
            with contextlib.suppress(OSError):  # the reader has closed its end
                while rest:
                    rest = rest[os.write(self._fd, rest) :]
