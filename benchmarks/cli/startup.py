"""How long a command takes to answer: detbuild beside docker and bare Python, in seconds and in CPU time.

    python benchmarks/cli/startup.py [ROUNDS]

Commands take turns, so that a busy moment of the machine falls on all of them. Medians are printed, with
the ratio of CPU time to bare Python and to `docker --help`; CPU time is that of the command's own process.
The rows of `create` need a Docker Engine with the base image. They submit the same directory each time, so
no image is built and one container is started; the last row is the same by hand.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BASE = "detbuild-base:cpu-debian12-py3.11"
TAG = "detbuild-bench-cli:hand"
SCRIPT = Path(sys.executable).with_name("detbuild")
DETBUILD = [str(SCRIPT)] if SCRIPT.exists() else [sys.executable, "-m", "detbuild.cli"]
BARE, DOCKER = "python -c pass", "docker --help"
CONFIG = f"""
name: bench
entrypoint: [python3, main.py]
environment: {{image: "{BASE}"}}
resources: {{slots_per_trial: 0}}
searcher: {{name: single, metric: loss, max_length: {{batches: 1}}}}
"""
Times = tuple[float, float]  # seconds, and of them CPU


def commands(root: Path) -> dict[str, list[list[str]]]:
    """The measured command lines of each row."""
    context, unknown, invalid = (str(root / name) for name in ("context", "unknown.yaml", "invalid.yaml"))
    rows: dict[str, list[list[str]]] = {
        BARE: [[sys.executable, "-c", "pass"]],
        "detbuild --help": [[*DETBUILD, "--help"]],
        "detbuild creat (usage error)": [[*DETBUILD, "creat"]],
        "detbuild create, invalid YAML": [[*DETBUILD, "create", invalid, context]],
        "detbuild create, unknown field": [[*DETBUILD, "create", unknown, context]],
        "detbuild list": [[*DETBUILD, "list"]],
        DOCKER: [["docker", "--help"]],
        "dstack --help": [["dstack", "--help"]],
        "mlflow --help": [["mlflow", "--help"]],
    }
    if has_base():
        rows["detbuild describe 1"] = [[*DETBUILD, "describe", "1"]]
        rows["detbuild create, unchanged"] = [[*DETBUILD, "create", "-q", f"{context}/config.yaml", context]]
        rows["docker build, docker run"] = [
            ["docker", "build", "-q", "-t", TAG, context],
            ["docker", "run", "-d", "--rm", TAG],
        ]
    return {name: lines for name, lines in rows.items() if shutil.which(lines[0][0])}


def has_base() -> bool:
    if shutil.which("docker") is None:
        return False
    found = subprocess.run(["docker", "image", "inspect", BASE], capture_output=True, check=False)
    return found.returncode == 0


def make_files(root: Path) -> None:
    context = root / "context"
    context.mkdir()
    (context / "config.yaml").write_text(CONFIG)
    (context / "main.py").write_text("print('hello')\n")
    (context / "Dockerfile").write_text(f"FROM {BASE}\nCOPY . /w\nENTRYPOINT python3 /w/main.py\n")
    (root / "unknown.yaml").write_text(CONFIG.replace("searcher:", "sercher:"))
    (root / "invalid.yaml").write_text("name: [a\n")


def measured(command: list[str], environment: Mapping[str, str]) -> Times:
    begun = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(environment)
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return time.perf_counter() - begun, used.ru_utime + used.ru_stime


def detbuild(environment: Mapping[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [*DETBUILD, *arguments], capture_output=True, text=True, env=environment, check=False
    )
    return done.stdout


def experiments(environment: Mapping[str, str]) -> Iterator[str]:
    yield from detbuild(environment, "list", "-q").split()


def settle(environment: Mapping[str, str]) -> None:
    """Wait for the controllers, so that none runs beside the next command, and index what ended."""
    for number in experiments(environment):
        detbuild(environment, "wait", number)
    detbuild(environment, "list")


def clean(environment: Mapping[str, str]) -> None:
    """Remove the images and experiments of this run; its containers are gone when they end."""
    settle(environment)
    tags = {
        json.loads(detbuild(environment, "describe", "--json", one))["tag"]
        for one in experiments(environment)
    }
    detbuild(environment, "delete", "--yes", *experiments(environment))
    subprocess.run(["docker", "rmi", "-f", TAG, *filter(None, tags)], capture_output=True, check=False)


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_files(root)
        environment = {
            **os.environ,
            "DETBUILD_HOME": str(root / "home"),
            "PYTHONPYCACHEPREFIX": str(root / "bytecode"),  # which an installed program has
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        rows = commands(root)
        times: dict[str, list[Times]] = {name: [] for name in rows}
        if has_base():  # builds the image
            context = root / "context"
            detbuild(environment, "create", "-q", str(context / "config.yaml"), str(context))
        try:
            for _ in range(rounds + 1):
                for name, lines in rows.items():
                    parts = [measured(line, environment) for line in lines]
                    times[name].append((sum(one for one, _ in parts), sum(cpu for _, cpu in parts)))
                    if name == "detbuild create, unchanged":
                        settle(environment)
        finally:
            if has_base():
                clean(environment)
    show({name: found[1:] for name, found in times.items()})  # the first round warms caches


def show(times: Mapping[str, list[Times]]) -> None:
    medians = {name: tuple(map(statistics.median, zip(*found, strict=True))) for name, found in times.items()}
    print(f"{'':<32} {'ms':>7} {'CPU ms':>7} {'x Python':>9} {'x docker':>9}")
    for name, (seconds, cpu) in medians.items():
        ratios = [f"{cpu / medians[unit][1]:.1f}" if unit in medians else "-" for unit in (BARE, DOCKER)]
        print(f"{name:<32} {seconds * 1000:7.0f} {cpu * 1000:7.1f} {ratios[0]:>9} {ratios[1]:>9}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
