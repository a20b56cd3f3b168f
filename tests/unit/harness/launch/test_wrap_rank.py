from __future__ import annotations

import os
import subprocess
import sys

from determined._contract.run_info import RUN_DIR_VARIABLE, RunInfo


def run(info: RunInfo | None, *argv: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name != RUN_DIR_VARIABLE}
    if info:
        environ[RUN_DIR_VARIABLE] = info.run_dir
    return subprocess.run(
        [sys.executable, "-m", *argv], env=environ, capture_output=True, text=True, check=False, timeout=60
    )


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
