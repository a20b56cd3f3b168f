from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from determined._contract.run_info import ENTRY, RUN_DIR_VARIABLE, ExitCode

if TYPE_CHECKING:
    from pathlib import Path


def start(context: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name != RUN_DIR_VARIABLE}
    return subprocess.run(command, cwd=context, env=environ, capture_output=True, text=True, check=False)


def test_only_detbuild_starts_a_run(tmp_path: Path) -> None:
    done = start(tmp_path, sys.executable, str(ENTRY))
    said = f"error: {RUN_DIR_VARIABLE} is not set: only detbuild can start this program\n"
    assert (done.returncode, done.stderr) == (ExitCode.INFRASTRUCTURE, said)


@pytest.mark.parametrize(
    ("child", "module"), [("worker", "worker.py"), ("launch", "torch_distributed.py"), ("rank", "wrap_rank")]
)
def test_each_child_is_a_program_of_its_own(tmp_path: Path, child: str, module: str) -> None:
    done = start(tmp_path, sys.executable, str(ENTRY), child)
    assert done.returncode != 0
    assert module in done.stderr  # its usage, or where it needs the supervisor


def test_modules_of_the_context_do_not_hide_pythons_own(tmp_path: Path) -> None:
    for name in ("json", "signal", "dataclasses"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the context was imported')\n")
    for command in ((str(ENTRY),), ("-m", "determined.exec")):
        done = start(tmp_path, sys.executable, *command)
        assert "the context was imported" not in done.stdout + done.stderr
