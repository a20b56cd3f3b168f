"""Size of a report, time to write it and time to open it in chromium, against trials and points.

python benchmarks/report/bench_report.py [DIRECTORY FOR PICTURES]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from detbuild.report.document import document
from detbuild.report.page import render
from detbuild.report.sources import read_all
from tests.browser.chromium import Page, browser
from tests.synthetic import HOSTILE, experiment

SIZES = ((1, 1_000), (5, 100), (50, 1_000), (500, 1_000), (1_000, 1_000))


def main() -> None:
    pictures = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory() as directory, browser(Path(directory, "profile")) as page:
        print("| trials | points | page MB | written s | open s |\n| ---: | ---: | ---: | ---: | ---: |")
        for trials, points in SIZES:
            measure(page, Path(directory), trials, points)
            if pictures:
                photograph(page, pictures, trials)


def measure(page: Page, directory: Path, trials: int, points: int) -> None:
    name = HOSTILE if trials == 5 else "mnist_search"
    folder = experiment(directory / "home", trials, points=points, name=name)
    begun = time.perf_counter()
    content = render(document(read_all([folder]), made=1.7e9 + 4_000))
    written = time.perf_counter() - begun
    file = directory / f"{trials}.html"
    file.write_bytes(content)
    page.look(1440, 1000)
    opened = min(page.open(file) for _ in range(3))
    print(f"| {trials} | {points} | {len(content) / 1e6:.2f} | {written:.1f} | {opened:.2f} |", flush=True)
    for trouble in page.troubles():
        print("TROUBLE", trouble[:600])


def photograph(page: Page, pictures: Path, trials: int) -> None:
    for width, dark in ((1440, False), (1440, True), (420, False)):
        page.look(width, 1000, dark=dark)
        height = int(str(page.evaluate("document.documentElement.scrollHeight")))
        page.look(width, min(height, 2600), dark=dark)
        page.picture(pictures / f"report-{trials}-{width}{'-dark' if dark else ''}.png")


if __name__ == "__main__":
    main()
