"""Determined's launchers as a container starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from determined._contract.records import Ended, decode
from determined._contract.run_info import RUN_DIR_VARIABLE, RunInfo

Replaced = Callable[[str], tuple["subprocess.CompletedProcess[str]", Ended]]


@pytest.fixture
def replaced(make_run: Callable[..., RunInfo]) -> Replaced:
    """Start an unsupported launcher in a run; return how it exits, and its last record."""

    def start(name: str) -> tuple[subprocess.CompletedProcess[str], Ended]:
        info = make_run()
        command = [sys.executable, "-m", f"determined.launch.{name}", "--trial", "model_def:Mine"]
        environ = {**os.environ, RUN_DIR_VARIABLE: info.run_dir}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        (line,) = (Path(info.run_dir) / "events.jsonl").read_bytes().splitlines()
        ended = decode(line).record
        assert isinstance(ended, Ended)
        return done, ended

    return start
