"""Rules about what builds fetch: base images from a registry, packages from an index."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from detbuild.cli.doctor.verdict import Verdict, ok, warning

if TYPE_CHECKING:
    from detbuild.cli.doctor.verdict import Surroundings


def package_index(around: Surroundings) -> Verdict:
    """Ask pip, which knows its own settings, proxies and certificates, for a package that every index has."""
    command = [sys.executable, "-m", "pip", "index", "versions", "pip", "--retries", "0", "--timeout", "3"]
    asked = subprocess.run(
        [*command, "--disable-pip-version-check", "--no-input"],
        env={**around.environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=4.5,
    )
    if asked.returncode == 0:
        return ok("pip reaches it")
    if "No module named pip" in asked.stderr:
        return ok("this Python has no pip to ask with; builds use the image's own")
    return warning(
        "pip reaches no package index; only images whose layers are cached, or need no packages, will build",
        "check `pip config list`, proxies and certificates; or point PIP_FIND_LINKS at a directory of wheels",
    )


def registry(around: Surroundings) -> Verdict:
    raise NotImplementedError
