"""Listing a context of 50,001 files, 20,000 of them kept, beside docker-py's and pathspec's own walks.

Run it with `python benchmarks/context/walk.py`. Machines differ: trust the ratios.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from docker.utils.build import exclude_paths
from pathspec import GitIgnoreSpec

from detbuild.context.snapshot import HashCache
from detbuild.context.walk import listing, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

PATTERNS = (
    "data/raw/",
    "*.log",
    "*.tmp",
    "/build",
    "node_modules/",
    "checkpoints/",
    "*.ckpt",
    "docs/**/*.html",
    "!keep.log",
    "tmp*",
    ".venv/",
    "*.egg-info/",
)
ROUNDS = 7


def make_tree(root: Path) -> None:
    """20,000 files that stay, 25,000 in an ignored directory, 5,000 that a pattern names, a `.detignore`."""
    root.mkdir()
    (root / ".detignore").write_text("\n".join(PATTERNS) + "\n")
    for number in range(200):
        _fill(root / "src" / f"package{number}", "module{}.py", 100)
    for number in range(100):
        _fill(root / "data" / "raw" / f"part{number}", "sample{}.bin", 250)
    for number in range(50):
        _fill(root / "logs" / f"day{number}", "worker{}.log", 100)


def _fill(directory: Path, name: str, count: int) -> None:
    directory.mkdir(parents=True)
    for number in range(count):
        (directory / name.format(number)).write_bytes(b"x" * 40)


def timed(action: Callable[[], int]) -> tuple[float, int]:
    """Seconds, and what the action counted."""
    started = time.perf_counter()
    count = action()
    return time.perf_counter() - started, count


def with_docker_py(root: Path) -> int:
    return len(exclude_paths(str(root), list(PATTERNS)))


def with_pathspec(root: Path) -> int:
    return sum(1 for _ in GitIgnoreSpec.from_lines(PATTERNS).match_tree_files(root, negate=True))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "context")
        make_tree(root)
        hashes = Path(folder, "hashes")
        actions: dict[str, Callable[[], int]] = {
            "detbuild listing (names, sizes, rules)": lambda: listing(root).files,
            "docker-py exclude_paths (names)": lambda: with_docker_py(root),
            "pathspec match_tree_files (names)": lambda: with_pathspec(root),
            "detbuild snapshot, all files hashed": lambda: snapshot(root).files,
            "detbuild snapshot, hashes cached": lambda: snapshot(root, cache=HashCache(hashes)).files,
        }
        time.sleep(2.1)  # hashes of files younger than two seconds are not kept
        seconds: dict[str, list[float]] = {name: [] for name in actions}
        counts: dict[str, int] = {}
        for _ in range(ROUNDS):  # in turns, so that a busy moment of the machine falls on all
            for name, action in actions.items():
                spent, counts[name] = timed(action)
                seconds[name].append(spent)
        floor = min(seconds["detbuild listing (names, sizes, rules)"])
        for name, spent in seconds.items():
            print(f"{name:42} {min(spent):7.3f} s  {min(spent) / floor:5.1f}x  {counts[name]:6} entries")


if __name__ == "__main__":
    main()
