from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest

from determined._contract.run_info import ENTRY, RUN_DIR_VARIABLE, RunInfo
from determined._run.processes import Rank
from determined.launch.torch_distributed import Request, parse

TRIAL = (sys.executable, str(ENTRY), "worker", "model_def:Mine")


@pytest.mark.parametrize(
    ("argv", "request_"),
    [
        (["python3", "train.py", "--lr", "1"], Request((), ("python3", "train.py", "--lr", "1"))),
        (["--", "python3", "t.py", "--", "x"], Request((), ("python3", "t.py", "--", "x"))),
        (["train.py"], Request((), (sys.executable, "train.py"))),
        (["--trial", "model_def:Mine"], Request((), TRIAL, is_trial=True)),
        (["--", "--trial", "model_def:Mine"], Request((), TRIAL, is_trial=True)),
        (["--tee", "3", "--", "python3", "t.py"], Request(("--tee", "3"), ("python3", "t.py"))),
        ([], None),
        (["--trial"], None),
        (["--", "--lr"], None),
    ],
)
def test_the_command_line_is_that_of_determined(argv: Sequence[str], request_: Request | None) -> None:
    assert parse(argv) == request_


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ((), None),
        (("--nproc-per-node", "3"), 3),
        (("--nproc_per_node=4", "--tee", "3"), 4),
        (("--nproc-per-node", "gpu"), None),
    ],
)
def test_the_options_may_ask_for_processes(options: tuple[str, ...], count: int | None) -> None:
    assert Request(options, ()).processes == count


def run(info: RunInfo | None, *argv: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name != RUN_DIR_VARIABLE}
    if info:
        environ[RUN_DIR_VARIABLE] = info.run_dir
    return subprocess.run(
        [sys.executable, "-m", *argv], env=environ, capture_output=True, text=True, check=False, timeout=60
    )


def test_one_slot_needs_no_launcher_and_has_its_variables(make_run: Callable[..., RunInfo]) -> None:
    code = (
        "import json, os; from dataclasses import asdict; from determined._run.processes import Rank; "
        "print(json.dumps(asdict(Rank.from_environ(os.environ))))"
    )
    done = run(make_run(slots=1), "determined.launch.torch_distributed", sys.executable, "-c", code)
    assert Rank(**json.loads(done.stdout)) == Rank()
