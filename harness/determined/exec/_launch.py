"""Starts the worker's program, after the startup hooks."""

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

HOOK_FILE = "startup-hook.sh"  # in the context
HOST_HOOK = "startup_hook of the host's config"
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
