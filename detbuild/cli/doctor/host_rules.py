"""Rules about this host: disks, Python, GPU driver."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from detbuild.cli.doctor.verdict import Verdict, fatal, ok, warning
from detbuild.cli.text import size

if TYPE_CHECKING:
    from detbuild.cli.doctor.verdict import Surroundings

GB = 1_000_000_000
DRIVER_VERSION = Path("/proc/driver/nvidia/version")


def disk(path: Path, *, wanted: int, needed: int) -> Verdict:
    """Judge the free space under `path`, which need not exist yet. Bytes."""
    there = next(parent for parent in (path, *path.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    finding = f"{size(free)} free under {path}"
    if free < needed:
        return fatal(finding, "free some space; `docker system df` shows what the engine holds")
    if free < wanted:
        return warning(f"{finding}: images with a framework take {size(wanted)} and more", "free some space")
    return ok(finding)


def home(around: Surroundings) -> Verdict:
    verdict = disk(around.home, wanted=5 * GB, needed=GB // 5)
    there = next(parent for parent in (around.home, *around.home.parents) if parent.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        return fatal(f"{there} is not writable", "set DETBUILD_HOME to a directory of yours")
    return verdict


def temporary(around: Surroundings) -> Verdict:  # noqa: ARG001  (the shape of a rule)
    return disk(Path(tempfile.gettempdir()), wanted=GB, needed=GB // 20)


def python(around: Surroundings) -> Verdict:  # noqa: ARG001  (the shape of a rule)
    version = platform.python_version()
    if sys.version_info < (3, 10):
        return fatal(f"Python {version}", "use Python 3.10 or newer")
    return ok(f"{version} ({sys.executable})")


def peer(around: Surroundings) -> Verdict:  # noqa: ARG001  (the shape of a rule)
    """Whether the package `determined` of Determined's own cluster is installed beside ours."""
    import determined

    remedy = f"{sys.executable} -m pip uninstall determined, then install detbuild again"
    try:
        version = metadata.version("determined")
    except metadata.PackageNotFoundError:
        return ok(f"`import determined` is detbuild's ({Path(determined.__file__ or '').parent})")
    return fatal(f"the package `determined` {version} of a Determined cluster is installed too", remedy)


def gpu_driver(around: Surroundings) -> Verdict:  # noqa: ARG001  (the shape of a rule)
    try:
        first = DRIVER_VERSION.read_text(encoding="utf-8").splitlines()[0]
    except (FileNotFoundError, IndexError):
        return ok("none: trials train on the CPU, with `resources: {slots_per_trial: 0}`")
    words = first.split()
    return ok(f"NVIDIA {next((word for word in words if word[:1].isdigit()), first)}")
