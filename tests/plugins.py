"""Packages with entry points: written for one test, or the examples, installed by pip."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

EXAMPLES = Path(__file__).parents[1] / "examples" / "plugins"


def write_package(folder: Path, group: str, name: str, source: str, *, package: str = "") -> str:
    """Write a package as pip installs it, with one module and one entry point; return its name."""
    package = package or f"detbuild-{name}"
    module = f"{package.replace('-', '_')}_{abs(hash(folder)) % 10**8}"  # of this test alone
    folder.mkdir(exist_ok=True)
    (folder / f"{module}.py").write_text(dedent(source), encoding="utf-8")
    info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", encoding="utf-8"
    )
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}\n", encoding="utf-8")
    return f"package {package} 1.0"


def install_examples(target: Path, scratch: Path) -> Path:
    """Install the example packages into a folder, without a network."""
    copies = scratch / "plugins"  # a build writes into its source
    shutil.copytree(EXAMPLES, copies, ignore=shutil.ignore_patterns("__pycache__"))
    packages = sorted(path.parent for path in copies.glob("*/pyproject.toml"))
    options = ("--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", target, *packages], check=True
    )
    return target
