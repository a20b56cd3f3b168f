"""From typing the command to a started container: detbuild beside docker by hand, torchx and mlflow.

    python benchmarks/submit/submit.py [--files 200] [--rounds 5] [--peers DIR]

`--peers` names the `bin` directory of a virtual environment with torchx, mlflow-skinny and docker; without it
they are left out. Every way submits the same directory from a shell command, and all ways take turns within
each round. The clock stops at the `start` event that the engine itself records for the container. Ratios are
to the floor: `create` and `start` of a ready image over the engine's socket, from a process that is up.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import docker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

BASE = "detbuild-base:cpu-debian12-py3.11"
LABEL = "detbuild.bench"
CONFIG = f"""
name: bench
entrypoint: [python3, main.py]
environment: {{image: "{BASE}"}}
resources: {{slots_per_trial: 0}}
searcher: {{name: single, metric: loss, max_length: {{batches: 1}}}}
"""
DOCKERFILE = f'FROM {BASE}\nWORKDIR /w\nCOPY . /w\nENTRYPOINT ["python3", "main.py"]\n'
MLPROJECT = (
    f"name: bench\ndocker_env:\n  image: {BASE}\nentry_points:\n  main:\n    command: python3 main.py\n"
)


def make_tree(root: Path, files: int) -> None:
    (root / "main.py").write_text("print('hello')\n")
    for number in range(files):
        folder = root / f"part{number // 100:03d}"
        folder.mkdir(exist_ok=True)
        (folder / f"file{number:05d}.txt").write_text(f"{number}\n" * 300)
    (root / "config.yaml").write_text(CONFIG)
    (root / "Dockerfile").write_text(DOCKERFILE)
    (root / "MLproject").write_text(MLPROJECT)
    (root / ".torchxconfig").write_text("")


def started_after(client: docker.APIClient, since: float, act: Callable[[], None]) -> float:
    """Seconds from now to the first container start that the engine records while and after `act` runs."""
    begin = time.time()
    act()
    for _ in range(100):
        events = client.events(
            since=int(since) - 1,
            until=int(time.time()) + 1,
            decode=True,
            filters={"event": "start", "type": "container"},
        )
        stamps = [event["timeNano"] / 1e9 for event in events]
        late = [stamp for stamp in stamps if stamp > begin]
        if late:
            return min(late) - begin
        time.sleep(0.05)
    raise SystemExit("no container was started")


def run(*command: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
    done = subprocess.run(
        command, capture_output=True, env={**os.environ, **(env or {})}, cwd=cwd, check=False
    )
    if done.returncode:
        sys.stderr.write(done.stderr.decode(errors="replace")[-2000:])
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}")


def ways(
    root: Path, client: docker.APIClient, peers: Path | None, home: Path
) -> dict[str, Callable[[], None]]:
    tag = f"{LABEL}:hand"

    def floor() -> None:
        made = client.create_container(BASE, command=["python3", "-c", "pass"], labels={LABEL: "1"})["Id"]
        client.start(made)

    def by_hand() -> None:
        run("docker", "build", "-q", "-t", tag, "--label", f"{LABEL}=1", str(root))
        run("docker", "run", "-d", "--label", f"{LABEL}=1", tag)

    detbuild = Path(sys.executable).with_name("detbuild")
    found: dict[str, Callable[[], None]] = {
        "engine: create + start": floor,
        "detbuild create": lambda: run(
            str(detbuild),
            "create",
            "-q",
            str(root / "config.yaml"),
            str(root),
            env={"DETBUILD_HOME": str(home)},
        ),
        "docker build + run": by_hand,
    }
    if peers:
        found["torchx run"] = lambda: run(
            str(peers / "torchx"), "run", "-s", "local_docker", "--workspace", str(root),
            "utils.sh", "--image", BASE, "python3", "main.py", cwd=root,
        )  # fmt: skip
        mlflow = {
            "MLFLOW_TRACKING_URI": f"{home}/mlruns",
            "MLFLOW_ALLOW_FILE_STORE": "true",
            "PATH": f"{peers}:{os.environ['PATH']}",
        }
        found["mlflow run"] = lambda: run(
            str(peers / "mlflow"), "run", "--build-image", str(root), cwd=home, env=mlflow
        )
    return found


def measure(arguments: argparse.Namespace, client: docker.APIClient) -> dict[tuple[str, str], list[float]]:
    times: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        root, home = Path(folder, "tree"), Path(folder, "home")
        root.mkdir()
        home.mkdir()
        make_tree(root, arguments.files)
        found = ways(root, client, arguments.peers, home)
        for round_number in range(arguments.rounds + 1):
            for change in ("nothing changed", "one file changed"):
                for name, act in found.items():
                    if change == "one file changed":
                        (root / "main.py").write_text(f"print('hello {round_number} {name}')\n")
                        time.sleep(0.02)
                    seconds = started_after(client, time.time(), act)
                    if round_number:  # the first round fills every cache
                        times.setdefault((change, name), []).append(seconds)
                    else:
                        act()  # after its own change each way is settled again
        settle(home)
    return times


def settle(home: Path) -> None:
    """Let the last controllers finish before their folders go."""
    deadline = time.monotonic() + 30
    detbuild = Path(sys.executable).with_name("detbuild")
    for folder in sorted((home / "experiments").iterdir()):
        left = max(deadline - time.monotonic(), 1)
        subprocess.run(
            [detbuild, "wait", folder.name],
            env={**os.environ, "DETBUILD_HOME": str(home)},
            capture_output=True,
            timeout=left,
            check=False,
        )


def clean(client: docker.APIClient, known: frozenset[str]) -> None:
    for container in client.containers(all=True):
        if container["Id"] not in known:
            client.remove_container(container["Id"], force=True)
    for image in client.images():
        names = image.get("RepoTags") or []
        if any(name.startswith((LABEL, "bench")) for name in names) or (image.get("Labels") or {}).get(LABEL):
            client.remove_image(image["Id"], force=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", type=Path)
    arguments = parser.parse_args()
    client = docker.APIClient(timeout=600)
    known = frozenset(container["Id"] for container in client.containers(all=True))
    try:
        times = measure(arguments, client)
    finally:
        clean(client, known)
    print(f"{arguments.files} files, {arguments.rounds} rounds, {os.cpu_count()} cores; seconds to the start")
    for change in ("nothing changed", "one file changed"):
        floor = statistics.median(times[change, "engine: create + start"])
        for (found, name), seconds in times.items():
            if found == change:
                middle = statistics.median(seconds)
                print(
                    f"{change:17}  {name:24}  {middle:7.3f}  min {min(seconds):7.3f}  {middle / floor:6.2f}x"
                )


if __name__ == "__main__":
    main()
