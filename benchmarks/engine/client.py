"""CPU time of our HTTP client on the engine's Unix socket beside docker-py, which does all other calls.

    python benchmarks/engine/client.py [ROUNDS]

Measured in processes of their own: the import of the client with its first request, a list of 32 containers,
an inspection of each, and `detbuild create` with nothing changed, once with docker-py instead of our client.
Needs a Docker Engine with the base image. The ways take turns, and medians are printed.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

BASE = "detbuild-base:cpu-debian12-py3.11"
LABEL = "detbuild-bench-client"
COUNT = 32
REPEATS = 20
CONFIG = f"""
name: bench
entrypoint: [python3, -c, pass]
environment: {{image: "{BASE}"}}
resources: {{slots_per_trial: 0}}
searcher: {{name: single, metric: loss, max_length: {{batches: 1}}}}
"""
CLIENTS = {
    "ours": "from detbuild.engine.http import EngineClient\n"
    "client = EngineClient(None, deadline=60)\n"
    "def ask(path, **params): return client.ask('GET', path, params=params).json()\n",
    "docker-py": "import docker\n"
    "client = docker.APIClient(version='auto', timeout=60)\n"
    "def ask(path, **params): return client._get(client._url(path), params=params).json()\n",
}
POLL = f"""
import gc, json, time
gc.disable()
{{client}}
ask('/info')
first = time.process_time()
label = json.dumps({{{{'label': ['{LABEL}']}}}})
found = [one['Id'] for one in ask('/containers/json', all='1', filters=label)]
begun = time.process_time()
for _ in range({REPEATS}): ask('/containers/json', all='1', filters=label)
listed = time.process_time()
for _ in range({REPEATS}):
    for one in found: ask(f'/containers/{{{{one}}}}/json')
print(first, (listed - begun) / {REPEATS}, (time.process_time() - listed) / {REPEATS})
"""
CREATE = "import sys\n{patch}\nfrom detbuild.cli.__main__ import main\nmain()\n"
PATCH = "from detbuild.engine import http\nhttp.unix_socket_path = lambda *_: None"


def cpu_of(command: list[str], environment: dict[str, str]) -> float:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime


def detbuild(environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "-m", "detbuild.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout


def measure(rounds: int, environment: dict[str, str], files: Path) -> dict[str, list[list[float]]]:
    times: dict[str, list[list[float]]] = {name: [] for name in CLIENTS}
    create = ["create", "-q", str(files / "config.yaml"), str(files)]
    detbuild(environment, *create)  # builds the image
    for _ in range(rounds + 1):
        for name, client in CLIENTS.items():
            poll = subprocess.run(
                [sys.executable, "-c", POLL.format(client=client)],
                capture_output=True, text=True, check=True, env=environment,
            )  # fmt: skip
            program = CREATE.format(patch=PATCH if name == "docker-py" else "")
            submitted = cpu_of([sys.executable, "-c", program, *create], environment)
            for number in detbuild(environment, "list", "-q").split():
                detbuild(environment, "wait", number)
            times[name].append([*map(float, poll.stdout.split()), submitted])
    return times


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder, "context")
        files.mkdir()
        (files / "config.yaml").write_text(CONFIG)
        environment = {
            **os.environ,
            "DETBUILD_HOME": f"{folder}/home",
            "PYTHONPYCACHEPREFIX": f"{folder}/bytecode",
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        label = ["--label", LABEL, BASE, "true"]
        made = [
            subprocess.run(
                ["docker", "create", *label], capture_output=True, text=True, check=True
            ).stdout.strip()
            for _ in range(COUNT)
        ]
        try:
            times = measure(rounds, environment, files)
            ids = detbuild(environment, "list", "-q").split()
            tag = json.loads(detbuild(environment, "describe", "--json", ids[0]))["tag"]
            detbuild(environment, "delete", "--yes", *ids)
            subprocess.run(["docker", "rmi", tag], capture_output=True, check=False)
        finally:
            subprocess.run(["docker", "rm", "-f", *made], capture_output=True, check=False)
    print(
        f"{'CPU ms':<10} {'import, first call':>19} {'list of 32':>11} {'32 inspections':>15} {'create':>7}"
    )
    for name, rows in times.items():
        first, listed, inspected, created = (
            statistics.median(column) * 1000 for column in zip(*rows[1:], strict=True)
        )
        print(f"{name:<10} {first:19.1f} {listed:11.2f} {inspected:15.2f} {created:7.0f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
