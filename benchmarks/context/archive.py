"""Packing 20,000 small files and one of 256 MiB into a tar stream, beside docker-py's own archive.

Run it with `python benchmarks/context/archive.py`. Machines differ: trust the ratios. Both read every file;
ours also compares each with the hash that the snapshot took.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from docker.utils.build import create_archive, exclude_paths

from detbuild.context.archive import stream
from detbuild.context.snapshot import HashCache
from detbuild.context.walk import snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 3


def small_files(root: Path) -> None:
    for number in range(200):
        folder = root / f"package{number}"
        folder.mkdir(parents=True)
        for inner in range(100):
            (folder / f"module{inner}.py").write_bytes(b"x" * 40)


def large_file(root: Path) -> None:
    root.mkdir()
    with (root / "weights.bin").open("wb") as file:
        for _ in range(256):
            file.write(b"\x01" * (1 << 20))


def with_docker_py(root: Path) -> int:
    files = sorted(exclude_paths(str(root), []))
    with create_archive(str(root), files=files) as archive:
        return archive.seek(0, 2)


def with_detbuild(root: Path, hashes: Path) -> int:
    tree = snapshot(root, cache=HashCache(hashes))
    return sum(len(piece) for piece in stream({"context": tree}, {}))


def compare(name: str, root: Path, hashes: Path) -> None:
    actions: dict[str, Callable[[], int]] = {
        "detbuild": lambda: with_detbuild(root, hashes),
        "docker-py": lambda: with_docker_py(root),
    }
    seconds: dict[str, list[float]] = {who: [] for who in actions}
    sizes: dict[str, int] = {}
    for _ in range(ROUNDS):
        for who, action in actions.items():
            started = time.perf_counter()
            sizes[who] = action()
            seconds[who].append(time.perf_counter() - started)
    for who, spent in seconds.items():
        ratio = min(spent) / min(seconds["detbuild"])
        print(f"{name:14} {who:10} {min(spent):7.3f} s  {ratio:5.1f}x  {sizes[who] / 1e6:7.1f} MB")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, make in {"20,000 files": small_files, "one of 256 MiB": large_file}.items():
            root = Path(folder, make.__name__)
            make(root)
            time.sleep(2.1)  # hashes of files younger than two seconds are not kept
            compare(name, root, Path(folder, f"{make.__name__}.hashes"))


if __name__ == "__main__":
    main()
