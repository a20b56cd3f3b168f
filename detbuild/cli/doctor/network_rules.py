"""Rules about the registry and the package index that builds use."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

from detbuild.cli.doctor.verdict import Verdict, ok, warning

if TYPE_CHECKING:
    from detbuild.cli.doctor.verdict import CheckContext

REGISTRY = "https://registry-1.docker.io/v2/"


def package_index(context: CheckContext) -> Verdict:
    """Query the index with pip, which applies its own settings, proxies and certificates."""
    command = [sys.executable, "-m", "pip", "index", "versions", "pip", "--retries", "0", "--timeout", "3"]
    try:
        completed = subprocess.run(
            [*command, "--disable-pip-version-check", "--no-input"],
            env={**context.environ},
            capture_output=True,
            text=True,
            check=False,
            timeout=4,
        )
    except subprocess.TimeoutExpired:
        return warning("the package index did not answer in time", "check `pip config list` and proxies")
    if completed.returncode == 0:
        return ok("reachable with pip")
    if "No module named pip" in completed.stderr:
        return ok("not checked: this Python has no pip; builds use that of the image")
    return warning(
        "pip cannot reach a package index; only builds from cached layers or without packages will work",
        "check `pip config list`, proxies and certificates; or point PIP_FIND_LINKS at a directory of wheels",
    )


def registry(_around: CheckContext) -> Verdict:
    """Check that the registry answers, even with 401; a remote engine may have another network."""
    try:
        with urllib.request.urlopen(REGISTRY, timeout=3):
            pass
    except urllib.error.HTTPError:
        return ok(f"{REGISTRY} answers")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return warning(
            f"{REGISTRY} does not answer: {reason}",
            "needed only for missing base images; `detbuild base bootstrap` builds one without a registry",
        )
    return ok(f"{REGISTRY} answers")
