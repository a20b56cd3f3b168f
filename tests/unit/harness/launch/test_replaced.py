from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from determined._contract.records import Ended, ExitReason, decode
from determined._contract.run_info import RUN_DIR_VARIABLE, RunInfo


def run(info: RunInfo | None, *argv: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name != RUN_DIR_VARIABLE}
    if info:
        environ[RUN_DIR_VARIABLE] = info.run_dir
    return subprocess.run(
        [sys.executable, "-m", *argv], env=environ, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("name", ["horovod", "deepspeed", "tensorflow"])
def test_a_launcher_that_is_not_carried_names_what_is(make_run: Callable[..., RunInfo], name: str) -> None:
    info = make_run()
    done = run(info, f"determined.launch.{name}", "--trial", "model_def:Mine")
    (line,) = (Path(info.run_dir) / "events.jsonl").read_bytes().splitlines()
    ended = decode(line).record
    assert isinstance(ended, Ended)
    assert (done.returncode, ended.reason) == (2, ExitReason.NOT_RETRYABLE)
    assert ended.message.startswith(f"determined.launch.{name}: ")
    assert ended.message in done.stderr
    assert ended.hint in done.stderr
