"""Rules about what builds fetch: base images from a registry, packages from an index."""

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
    """Ask pip, which knows its own settings, proxies and certificates, for a package that every index has."""
    command = [sys.executable, "-m", "pip", "index", "versions", "pip", "--retries", "0", "--timeout", "3"]
    try:
        asked = subprocess.run(
            [*command, "--disable-pip-version-check", "--no-input"],
            env={**context.environ},
            capture_output=True,
            text=True,
            check=False,
            timeout=4,
        )
    except subprocess.TimeoutExpired:
        return warning("the package index did not answer in time", "check `pip config list` and proxies")
    if asked.returncode == 0:
        return ok("pip reaches it")
    if "No module named pip" in asked.stderr:
        return ok("this Python has no pip to ask with; builds use the image's own")
    return warning(
        "pip reaches no package index; only images whose layers are cached, or need no packages, will build",
        "check `pip config list`, proxies and certificates; or point PIP_FIND_LINKS at a directory of wheels",
    )


def registry(_around: CheckContext) -> Verdict:
    """Any answer will do, also "who are you?". An engine elsewhere may see another network than this host."""
    try:
        with urllib.request.urlopen(REGISTRY, timeout=3):
            pass
    except urllib.error.HTTPError:
        return ok(f"{REGISTRY} answers")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return warning(
            f"{REGISTRY} does not answer: {reason}",
            "needed only for absent base images; `detbuild base bootstrap` makes one without a registry",
        )
    return ok(f"{REGISTRY} answers")
