from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from determined._contract.records import Ended, ExitReason, decode
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


def test_lines_are_marked_and_carriage_returns_end_them() -> None:
    code = r"import sys; sys.stdout.write('10%\r100%\r\ndone'); sys.stderr.write('odd\n'); sys.exit(3)"
    done = run(None, "determined.launch.wrap_rank", "NO_SUCH,4", sys.executable, "-c", code)
    assert done.returncode == 2  # neither is a variable
    os.environ["MY_RANK"] = "4"
    try:
        done = run(None, "determined.launch.wrap_rank", "NO_SUCH,MY_RANK", "--", sys.executable, "-c", code)
    finally:
        del os.environ["MY_RANK"]
    assert (done.stdout, done.stderr) == ("[rank=4] 10%\n[rank=4] 100%\n[rank=4] done\n", "[rank=4] odd\n")
    assert done.returncode == 3
