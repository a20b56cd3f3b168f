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
from detbuild.units import size

if TYPE_CHECKING:
    from detbuild.cli.doctor.verdict import CheckContext

GB = 1_000_000_000
DRIVER_VERSION = Path("/proc/driver/nvidia/version")


def disk(path: Path, *, recommended: int, required: int) -> Verdict:
    """Check the free space in bytes under `path`, which need not exist yet."""
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    finding = f"{size(free)} free under {path}"
    if free < required:
        return fatal(finding, "free some space; `docker system df` shows what the engine uses")
    if free < recommended:
        return warning(
            f"{finding}: images with a framework take {size(recommended)} and more", "free some space"
        )
    return ok(finding)


def home(context: CheckContext) -> Verdict:
    verdict = disk(context.home, recommended=5 * GB, required=GB // 5)
    existing = next(parent for parent in (context.home, *context.home.parents) if parent.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        return fatal(f"{existing} is not writable", "set DETBUILD_HOME to a writable directory")
    return verdict


def config(context: CheckContext) -> Verdict:
    """Check the host config; its error is the finding."""
    from detbuild.config.host import HOST_CONFIG, host_config

    host = host_config(context.home)
    for warned in host.warnings():
        return warning(warned.message, warned.hint)
    existing = (context.home / HOST_CONFIG).exists()
    return ok(str(context.home / HOST_CONFIG) if existing else f"none in {context.home}: nothing is preset")


def temporary(_around: CheckContext) -> Verdict:
    return disk(Path(tempfile.gettempdir()), recommended=GB, required=GB // 20)


def python(_around: CheckContext) -> Verdict:
    return ok(f"{platform.python_version()} ({sys.executable})")


def peer(_around: CheckContext) -> Verdict:
    """Check that Determined's own package `determined` is not installed too."""
    import determined

    hint = f"run `{sys.executable} -m pip uninstall determined`, then install detbuild again"
    try:
        version = metadata.version("determined")
    except metadata.PackageNotFoundError:
        return ok(f"`import determined` is detbuild's ({Path(determined.__file__ or '').parent})")
    return fatal(f"Determined's own package `determined` {version} is installed too", hint)


def gpu_driver(_around: CheckContext) -> Verdict:
    from detbuild.image.requirements import release
    from detbuild.image.table import load_table
    from detbuild.resources import images_dir

    version = _driver_version()
    if not version:
        return ok("none: trials train on the CPU, with `resources: {slots_per_trial: 0}`")
    frameworks = load_table(images_dir()).frameworks.values()
    oldest = min((row.min_driver for framework in frameworks for row in framework.releases), key=release)
    if release(version) < release(oldest):
        return warning(f"NVIDIA {version} is too old for the frameworks", f"install {oldest} or newer")
    return ok(f"NVIDIA {version}")


def _driver_version() -> str:
    """Return the version from the driver's own line; "" without a driver."""
    try:
        first = DRIVER_VERSION.read_text(encoding="utf-8").splitlines()[0]
    except (FileNotFoundError, IndexError):
        return ""
    return next((word for word in first.split() if word[:1].isdigit()), "")
