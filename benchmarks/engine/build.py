"""One build after an edit, three ways: our session, our whole tar, the docker command; 200 and 20,000 files.

Run it with `python benchmarks/engine/build.py` where there is a Docker Engine. Each way has the same
Dockerfile, `FROM scratch` and one COPY, and is timed from the directory on disk to the image's id. Machines
differ: trust the ratios. Without its buildx plug-in the docker command falls back to the classic builder.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from detbuild.context.snapshot import HashCache
from detbuild.context.walk import snapshot
from detbuild.engine.docker import DockerEngine
from detbuild.image.plan import ImagePlan

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 5
TAG = "detbuild-bench:build"
LABEL = "detbuild.bench"
DOCKERFILE = "FROM scratch\nCOPY context /context\n"


def make_files(root: Path, count: int) -> None:
    for number in range(count):
        folder = root / "context" / f"package{number // 100}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"module{number}.py").write_text(f"value = {number}\n" * 100)
    (root / "Dockerfile").write_text(DOCKERFILE)


def with_detbuild(engine: DockerEngine, root: Path, cache: HashCache) -> Callable[[], None]:
    def build() -> None:
        trees = {"context": snapshot(root / "context", cache=cache)}
        engine.build(
            ImagePlan(tag=TAG, base_image="scratch", dockerfile=DOCKERFILE, trees=trees, labels={LABEL: ""}),
            lambda _: None,
        )

    return build


def with_docker(root: Path) -> Callable[[], None]:
    def build() -> None:
        subprocess.run(
            ["docker", "build", "-q", "-t", TAG, "--label", LABEL, root], check=True, capture_output=True
        )

    return build


def edit(root: Path, nonce: int) -> None:
    (root / "context" / "package0" / "module7.py").write_text(f"value = {nonce}\n")


def measure(ways: dict[str, Callable[[], None]], change: Callable[[int], None]) -> dict[str, float]:
    """Median seconds of each way; the ways take turns, each after a change of its own."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(ROUNDS + 1):
        for number, (name, build) in enumerate(ways.items()):
            change(turn * len(ways) + number)
            started = time.perf_counter()
            build()
            if turn:  # the first turn sends everything
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def compare(count: int) -> None:
    session, whole = DockerEngine(), DockerEngine(whole_tar=True)
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "root"
        make_files(root, count)
        cache = HashCache(Path(directory) / "hashes")
        ways = {
            "session": with_detbuild(session, root, cache),
            "whole tar": with_detbuild(whole, root, cache),
            "docker build": with_docker(root),
        }
        for what, change in (("unchanged", lambda _: None), ("one changed", lambda nonce: edit(root, nonce))):
            medians = measure(ways, change)
            shown = "  ".join(f"{name} {1000 * value:6.0f} ms" for name, value in medians.items())
            ratio = medians["docker build"] / medians["session"]
            print(f"{count:6} files, {what:11}: {shown}  docker build / session {ratio:.1f}")
    session.remove_image(TAG)
    leftover = ["docker", "image", "prune", "--force", "--filter", f"label={LABEL}"]
    subprocess.run(leftover, check=True, capture_output=True)
    session.close()
    whole.close()


if __name__ == "__main__":
    os.environ.setdefault("DOCKER_CLI_HINTS", "false")
    for files in (200, 20_000):
        compare(files)
