"""Starts the worker: which program it is, and what has to come before it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from determined._entrypoint import names_trial
from determined.exec import ENTRY
from determined.exec._children import die_with_parent
from determined.exec._environment import worker_environment

if TYPE_CHECKING:
    from determined._run_info import RunInfo

HOOK_FILE = "startup-hook.sh"
# Sourced, so that it may set variables, limits and the directory for what follows; in a function, so that it
# may use `set --`. A failing command ends it, as in Determined. A byte through the pipe says that it is over.
_HOOK_THEN_WORKER = f"""
_hook() {{ . ./{HOOK_FILE}; }}
_passed=$1
shift
set -e
_hook
set +e
printf x >"/proc/self/fd/$_passed"
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Worker:
    process: subprocess.Popen[bytes]
    is_trial: bool  # the harness's own worker, and not a script of the user's
    in_shell: bool  # of a script, only the whole process group is sure to hold the program
    hook: int | None  # read end of the pipe that tells when the start-up hook is over

    def send(self, number: int) -> None:
        """Pass a signal on.

        A trial's data loader workers must not get it: PyTorch's die of SIGTERM, and the trial with them.
        """
        if self.process.returncode is not None:
            return
        if self.in_shell:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)

    def hook_passed(self) -> bool:
        """Whether the worker itself was reached. Ask once, when the process has ended."""
        if self.hook is None:
            return True
        os.set_blocking(self.hook, False)
        try:
            return os.read(self.hook, 1) != b""
        except BlockingIOError:
            return False


def launch(info: RunInfo) -> Worker:
    """Start the worker in the context directory, in a session of its own.

    Raises:
        OSError: the program or the directory is not there or cannot be used.
    """
    is_trial = isinstance(info.entrypoint, str) and names_trial(info.entrypoint)
    command, reader, writer = _command(info), None, None
    if (Path(info.context_dir) / HOOK_FILE).is_file():
        reader, writer = os.pipe()
        shell = shutil.which("bash") or "sh"  # hooks written for Determined may use bash's words
        command = [shell, "-c", _HOOK_THEN_WORKER, HOOK_FILE, str(writer), *command]
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
    return Worker(process, is_trial, in_shell, reader)


def _command(info: RunInfo) -> list[str]:
    if isinstance(info.entrypoint, tuple):
        return list(info.entrypoint)
    if names_trial(info.entrypoint):
        return [sys.executable, str(ENTRY), "launch" if info.slots > 1 else "worker"]
    return ["sh", "-c", info.entrypoint]
