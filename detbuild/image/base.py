"""Sources of a base image: the engine's own store, a registry, or Debian packages of this host."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Final

from detbuild.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from detbuild.image.resolve import Resolution
    from detbuild.image.table import Table

# Options of `docker import`: a root file system has no image configuration.
IMPORT_CHANGES: Final = (
    "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    'CMD ["python3"]',
)
_BOOTSTRAP: Final = "bootstrap.sh"
_TIMEOUT: Final = 900  # seconds; half a minute is usual


def choose_base(resolution: Resolution, is_local: Callable[[str], bool]) -> str:
    """Return the first base that the engine has, else the one to pull."""
    return next((base for base in resolution.bases if is_local(base)), resolution.bases[0])


def can_bootstrap(resolution: Resolution, table: Table, tag: str) -> bool:
    """Whether a base of that tag, built on this host, is suitable."""
    base = table.base(tag)
    return base is not None and base.local and tag in resolution.bases


def bootstrap_tag(images: Path) -> str:
    """Return the tag of the base that this host can build from its own packages.

    Raises:
        EngineError: It cannot build one.
    """
    return _script(images, "--tag").strip()


def bootstrap(images: Path, rootfs_tar: Path) -> None:
    """Write a root file system for `Engine.import_image`.

    Raises:
        EngineError: This host is not Debian, the caller is not root, or no mirror answers.
    """
    _script(images, str(rootfs_tar))


def _script(images: Path, argument: str) -> str:
    command = ["sh", str(images / _BOOTSTRAP), argument]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_TIMEOUT)
    except subprocess.CalledProcessError as error:
        output = error.stderr.strip().splitlines() or [f"exit code {error.returncode}"]
        raise _failed(output[-1].removeprefix("bootstrap: ")) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _failed(str(error)) from error
    return done.stdout


def _failed(why: str) -> EngineError:
    return EngineError(
        f"no base image could be made from Debian packages: {why}",
        hint="load one with `docker load`, or set environment.image to an existing image",
    )
