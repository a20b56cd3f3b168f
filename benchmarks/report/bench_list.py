"""What `detbuild list` and `describe` read, first and again, beside reading all files.

python benchmarks/report/bench_list.py

Homes with 300 small experiments, with a search of 500 trials x 1,000 points that still runs, and with one of
10,000 trials x 5 points. The ratio is of the second look to a look that reads everything, in one process.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[2]))

from detbuild.api.client import Client
from detbuild.cli.pages import experiment_page
from detbuild.engine.docker import DockerEngine
from detbuild.store.cache import load_cached, summaries
from detbuild.store.home import Home
from detbuild.store.state import load
from tests.synthetic import experiment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from detbuild.store.experiment_dir import ExperimentFolder

HOMES = ((300, 2, 20), (1, 500, 1_000), (1, 10_000, 5))  # experiments, trials, points


def main() -> None:
    print("| experiments | trials | points | | first s | again s | all files s | ratio |")
    print("| ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: |")
    for experiments, trials, points in HOMES:
        with tempfile.TemporaryDirectory() as directory:
            home = Home.open(Path(directory))
            folders = [experiment(home.path, trials, points=points) for _ in range(experiments)]
            measure(f"| {experiments} | {trials} | {points} |", home, folders)


def measure(size: str, home: Home, folders: Sequence[ExperimentFolder]) -> None:
    one = folders[0]
    handle = Client(path=home.path, environ={}, connect=DockerEngine, emit=print).experiment(one.id)
    show(f"{size} list |", lambda: [*summaries(home, print)], lambda: [*map(load, folders)])
    show(
        f"{size} describe |",
        lambda: experiment_page(handle, load_cached(home, one)),
        lambda: experiment_page(handle, load(one)),
    )


def show(name: str, look: Callable[[], object], read_all: Callable[[], object]) -> None:
    first, again, everything = seconds(look), min(seconds(look), seconds(look)), seconds(read_all)
    print(f"{name} {first:.2f} | {again:.3f} | {everything:.2f} | {again / everything:.2f} |", flush=True)


def seconds(act: Callable[[], object]) -> float:
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
