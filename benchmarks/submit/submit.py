"""From typing the command to a started container: detbuild beside docker by hand, torchx and mlflow.

    python benchmarks/submit/submit.py [--files 200] [--rounds 5] [--peers DIR]

`--peers` names the `bin` directory of a virtual environment with torchx, mlflow-skinny and docker; without it
they are left out. Every way submits the same directory from a shell command, and all ways take turns within
each round. The clock stops at the `start` event that the engine itself records for the container. Ratios are
to the floor: `create` and `start` of a ready image over the engine's socket, from a process that is up. The
row "detbuild from Python" is measured likewise, from a process that has everything imported; the rows of
commands hold the start of their interpreter. All may keep byte code, as installed programs do.
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

from detbuild import experiment
from detbuild.config.parse import load_config
from detbuild.engine.docker import DockerEngine
from detbuild.runtime.labels import HOME_LABEL
from detbuild.store.home import Home

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

BASE = "detbuild-base:cpu-debian12-py3.11"
LABEL = "detbuild.bench"
TORCHX_LABEL = "torchx.pytorch.org/app-id"
FLOOR = "engine: create + start"
PROGRAM = "print('hello')\n"
PAUSE = 2.0  # seconds, for what the way before left running
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
    for number in range(files):
        folder = root / f"part{number // 100:03d}"
        folder.mkdir(exist_ok=True)
        (folder / f"file{number:05d}.txt").write_text(f"{number}\n" * 300)
    (root / "config.yaml").write_text(CONFIG)
    (root / "Dockerfile").write_text(DOCKERFILE)
    (root / "MLproject").write_text(MLPROJECT)
    (root / ".torchxconfig").write_text("")


def started_after(client: docker.APIClient, home_id: str, act: Callable[[], None]) -> float:
    """Seconds from now to the first start of a container of ours that the engine records while `act` runs."""
    begin = time.time()
    act()
    for _ in range(100):
        events = client.events(
            since=int(begin) - 1,
            until=int(time.time()) + 1,
            decode=True,
            filters={"event": "start", "type": "container"},
        )
        ours = [event for event in events if is_ours(event["Actor"]["Attributes"], home_id)]
        late = [event["timeNano"] / 1e9 for event in ours if event["timeNano"] / 1e9 > begin]
        if late:
            return min(late) - begin
        time.sleep(0.05)
    raise SystemExit("no container was started")


def is_ours(labels: Mapping[str, str], home_id: str) -> bool:
    """Whether a container is of this run, by its labels, or by its image as the engine's events name it."""
    mine = LABEL in labels or labels.get(HOME_LABEL) == home_id
    return mine or TORCHX_LABEL in labels or labels.get("image", "").partition(":")[0] == "bench"


def run(*command: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        command, capture_output=True, env={**inherited, **(env or {})}, cwd=cwd, check=False
    )
    if done.returncode:
        sys.stderr.write(done.stderr.decode(errors="replace")[-2000:])
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}")


def from_python(root: Path, home: Path) -> Callable[[], None]:
    """The same submission without the start of an interpreter."""
    place, host, engine = Home.open(home), experiment.this_host(os.environ), DockerEngine()

    def act() -> None:
        config = root / "config.yaml"
        request = experiment.SubmitRequest(
            config=load_config(config), text=config.read_text(encoding="utf-8"), context_dir=root
        )
        submission = experiment.prepare(request, host, place, lambda _: None, builder=engine)
        experiment.submit(submission, host, place, lambda _: None, engine=engine)

    return act


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

    bytecode = {"PYTHONPYCACHEPREFIX": str(home / "bytecode")}
    detbuild = Path(sys.executable).with_name("detbuild")
    found: dict[str, Callable[[], None]] = {
        FLOOR: floor,
        "detbuild from Python": from_python(root, home),
        "detbuild create": lambda: run(
            str(detbuild),
            "create",
            "-q",
            str(root / "config.yaml"),
            str(root),
            env={"DETBUILD_HOME": str(home), **bytecode},
        ),
        "docker build + run": by_hand,
    }
    if peers:
        found["torchx run"] = lambda: run(
            str(peers / "torchx"), "run", "-s", "local_docker", "--workspace", str(root),
            "utils.sh", "--image", BASE, "python3", "main.py", cwd=root, env=bytecode,
        )  # fmt: skip
        mlflow = {
            **bytecode,
            "MLFLOW_TRACKING_URI": f"{home}/mlruns",
            "MLFLOW_ALLOW_FILE_STORE": "true",
            "PATH": f"{peers}:{os.environ['PATH']}",
        }
        found["mlflow run"] = lambda: run(
            str(peers / "mlflow"), "run", "--build-image", str(root), cwd=home, env=mlflow
        )
    return found


def measure(
    arguments: argparse.Namespace, client: docker.APIClient, root: Path, home: Path
) -> dict[tuple[str, str], list[float]]:
    times: dict[tuple[str, str], list[float]] = {}
    make_tree(root, arguments.files)
    found = ways(root, client, arguments.peers, home)
    home_id = Home.open(home).id
    for round_number in range(arguments.rounds + 1):
        for change in ("nothing changed", "one file changed"):
            (root / "main.py").write_text(PROGRAM)
            for name, act in found.items():
                if change == "one file changed":
                    (root / "main.py").write_text(f"{PROGRAM}# {round_number} {name}\n")
                time.sleep(PAUSE)
                seconds = started_after(client, home_id, act)
                if round_number:  # the first round fills every cache
                    times.setdefault((change, name), []).append(seconds)
    return times


def settle(home: Path) -> frozenset[str]:
    """Let the last controllers finish before their folders go; return the images of the experiments."""
    place = Home.open(home)
    for number in place.ids():
        experiment.wait(place, number, lambda _: None)
    return frozenset(place.folder(number).header().image for number in place.ids())


def clean(client: docker.APIClient, known: frozenset[str], home_id: str, built: frozenset[str]) -> None:
    """Remove what this run made and nothing else: others may use the engine at the same time."""
    base = client.inspect_image(BASE)["Id"]
    for container in client.containers(all=True):
        facts = {**container["Labels"], "image": container["Image"]}
        if container["Id"] not in known and is_ours(facts, home_id):
            client.remove_container(container["Id"], force=True)
            built |= {container["ImageID"]} - {base}
    for image in client.images():
        theirs = any(tag.startswith((LABEL, "bench:")) for tag in image.get("RepoTags") or ())
        if image["Id"] in built or theirs or LABEL in (image.get("Labels") or {}):
            client.remove_image(image["Id"], force=True)


def show(times: Mapping[tuple[str, str], list[float]]) -> None:
    for change in ("nothing changed", "one file changed"):
        floor = statistics.median(times[change, FLOOR])
        for (found, name), seconds in times.items():
            if found == change:
                middle = statistics.median(seconds)
                print(
                    f"{change:17}  {name:24}  {middle:7.3f}  min {min(seconds):7.3f}  {middle / floor:6.2f}x"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", type=Path)
    arguments = parser.parse_args()
    client = docker.APIClient(timeout=600)
    known = frozenset(container["Id"] for container in client.containers(all=True))
    with tempfile.TemporaryDirectory() as folder:
        root, home = Path(folder, "tree"), Path(folder, "home")
        root.mkdir()
        home.mkdir()
        try:
            times = measure(arguments, client, root, home)
        finally:
            built = settle(home)
            clean(client, known, Home.open(home).id, built)
    print(f"{arguments.files} files, {arguments.rounds} rounds, {os.cpu_count()} cores; seconds to the start")
    show(times)


if __name__ == "__main__":
    main()
