"""Size of a report, time to write it and time to open it in chromium, against trials and points.

python benchmarks/report/bench_report.py [DIRECTORY FOR PICTURES]

The ratio is to the time in which `json.loads` alone reads every record, in the same process: what a page has
to read at least.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

sys.path.insert(0, str(Path(__file__).parents[2]))

from detbuild.api.report import read_all
from detbuild.report.document import document
from detbuild.report.page import render
from tests.browser.chromium import Page, browser
from tests.synthetic import HOSTILE, experiment

if TYPE_CHECKING:
    from collections.abc import Callable

    from detbuild.store.experiment_dir import ExperimentFolder

T = TypeVar("T")
SIZES = ((1, 1_000), (5, 100), (50, 1_000), (500, 1_000), (1_000, 1_000))


def main() -> None:
    pictures = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory() as directory, browser(Path(directory, "profile")) as page:
        print("| trials | points | page MB | written s | to json.loads | open s |")
        print("| ---: | ---: | ---: | ---: | ---: | ---: |")
        for trials, points in SIZES:
            measure(page, Path(directory), trials, points)
            if pictures:
                photograph(page, pictures, trials)


def measure(page: Page, directory: Path, trials: int, points: int) -> None:
    name = HOSTILE if trials == 5 else "mnist_search"
    folder = experiment(directory / "home", trials, points=points, name=name)
    (floor, _), (written, content) = (timed(lambda: parsed(folder)), timed(lambda: page_of(folder)))
    file = directory / f"{trials}.html"
    file.write_bytes(content)
    page.look(1440, 1000)
    opened = min(page.open(file) for _ in range(3))
    times = f"{written:.1f} | {written / floor:.1f} | {opened:.2f}"
    print(f"| {trials} | {points} | {len(content) / 1e6:.2f} | {times} |", flush=True)
    for trouble in page.troubles():
        print("TROUBLE", trouble[:600])


def page_of(folder: ExperimentFolder) -> bytes:
    return render(document(read_all([folder]), made=1.7e9 + 4_000))


def parsed(folder: ExperimentFolder) -> int:
    return sum(
        isinstance(json.loads(line), dict)
        for file in folder.path.glob("runs/*/events.jsonl")
        for line in file.read_bytes().splitlines()
    )


def timed(act: Callable[[], T]) -> tuple[float, T]:
    """The better of two times, and the result."""
    times = []
    for _ in range(2):
        begun = time.perf_counter()
        result = act()
        times.append(time.perf_counter() - begun)
    return min(times), result


def photograph(page: Page, pictures: Path, trials: int) -> None:
    for width, dark in ((1440, False), (1440, True), (420, False)):
        page.look(width, 1000, dark=dark)
        height = int(str(page.evaluate("document.documentElement.scrollHeight")))
        page.look(width, min(height, 2600), dark=dark)
        page.picture(pictures / f"report-{trials}-{width}{'-dark' if dark else ''}.png")


if __name__ == "__main__":
    main()
