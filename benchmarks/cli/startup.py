"""How long a command line takes to answer, side by side: detbuild, docker and bare Python.

    python benchmarks/cli/startup.py [ROUNDS]

Commands take turns, so that a busy moment of the machine falls on all of them; medians are printed.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCRIPT = Path(sys.executable).with_name("detbuild")
DETBUILD = [str(SCRIPT)] if SCRIPT.exists() else [sys.executable, "-m", "detbuild.cli"]
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "detbuild --help": [*DETBUILD, "--help"],
    "detbuild create --help": [*DETBUILD, "create", "--help"],
    "detbuild creat (usage error)": [*DETBUILD, "creat"],
    "detbuild completion bash": [*DETBUILD, "completion", "bash"],
    "detbuild list": [*DETBUILD, "list"],
    "docker --help": ["docker", "--help"],
    "dstack --help": ["dstack", "--help"],
    "mlflow --help": ["mlflow", "--help"],
}


def seconds(command: list[str], environment: dict[str, str]) -> float:
    begun = time.perf_counter()
    subprocess.run(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, check=False
    )
    return time.perf_counter() - begun


def main(rounds: int) -> None:
    there = {name: command for name, command in COMMANDS.items() if shutil.which(command[0])}
    times: dict[str, list[float]] = {name: [] for name in there}
    with tempfile.TemporaryDirectory() as bytecode:  # which an installed program has
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": bytecode}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for _ in range(rounds + 1):
            for name, command in there.items():
                times[name].append(seconds(command, environment))
    medians = {
        name: statistics.median(measured[1:]) for name, measured in times.items()
    }  # the first warms caches
    bare = medians["python -c pass"]
    for name, median in medians.items():
        print(f"{name:<30} {median * 1000:7.1f} ms  {median / bare:5.1f} x bare Python")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 11)
