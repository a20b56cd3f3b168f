from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from determined._run import exit as run_exit
from determined._run.exit import children, command_of, has_variable, reap

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_children_are_found_with_their_commands_and_variables() -> None:
    with subprocess.Popen(SLEEP, env={**os.environ, "MARKED": "1"}) as process:
        try:
            assert process.pid in children()
            while not command_of(process.pid).endswith("time.sleep(60))"):
                time.sleep(0.01)  # until the program has replaced the fork
            assert has_variable(process.pid, "MARKED")
            assert not has_variable(process.pid, "MARK")
        finally:
            process.kill()
    assert process.pid not in children()
    assert command_of(process.pid) == f"process {process.pid}"


def test_reaping_keeps_the_status_of_the_worker() -> None:
    worker = subprocess.Popen(SLEEP)
    os.kill(worker.pid, signal.SIGTERM)
    while worker.returncode is None:
        reap(worker)
        time.sleep(0.01)
    assert worker.returncode == -signal.SIGTERM


def test_no_line_of_the_harness_is_named_as_what_delays_the_exit() -> None:
    rooms = Path(run_exit.__file__).parents[1]
    assert run_exit._is_library(str(rooms / "exec" / "worker.py"))
    assert run_exit._is_library(os.__file__)
    assert not run_exit._is_library("/ctx/model_def.py")
