"""Checks before the build that this host can provide what a config requests."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from detbuild.config.environment import reserved
from detbuild.config.storage import SharedFs
from detbuild.config.yaml import ConfigErrors, KeyPath, Problem
from detbuild.launch.gpus import discover, shortage_error
from detbuild.store.files import file_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.engine.protocol import EngineInfo


_LONGEST: Final = 40  # characters of a path in a message


def nowhere(_path: KeyPath) -> str:
    """Return no position: the text of the value is unknown."""
    return ""


def check_host(
    config: ExperimentConfig,
    info: EngineInfo,
    nvidia_smi: Callable[[], str],
    *,
    gpus: Collection[str] | None = None,
    place: Callable[[KeyPath], str] = nowhere,
) -> None:
    """Check GPUs and directories to mount; create the checkpoint directory.

    Args:
        config: The experiment's config.
        info: The engine.
        nvidia_smi: Output of `nvidia-smi -L`.
        gpus: Names of usable GPUs; None for all.
        place: Returns the position of a key in the config, as text.

    Raises:
        EngineError: The host has too few GPUs, or the directory cannot be created.
        ConfigError: A directory to mount is missing, or belongs to the host itself.
    """
    slots = config.resources.slots_per_trial
    error = shortage_error(discover(info, nvidia_smi(), gpus), slots) if slots else None
    if error is not None:
        raise error
    check_mounts(config, place, engine_root=info.data_root)
    storage = config.checkpoint_storage
    if isinstance(storage, SharedFs):
        with file_errors(Path(storage.directory)):
            Path(storage.directory).mkdir(parents=True, exist_ok=True)


def check_mounts(
    config: ExperimentConfig, place: Callable[[KeyPath], str] = nowhere, *, engine_root: str = ""
) -> None:
    """Raise one error for all directories that cannot be mounted; create nothing.

    Raises:
        ConfigErrors: A source is missing, or belongs to the host itself.
    """
    found = []
    for index, mount in enumerate(config.bind_mounts):
        path: KeyPath = ("bind_mounts", index, "host_path")
        if _is_missing(mount.host_path):
            found.append(
                Problem(path, f"{_short(mount.host_path)} does not exist", "create it, or mount another")
            )
        else:
            found += _reserved(path, mount.host_path, engine_root)
    if isinstance(config.checkpoint_storage, SharedFs):
        found += _reserved(
            ("checkpoint_storage", "host_path"), config.checkpoint_storage.host_path, engine_root
        )
    if found:
        raise ConfigErrors(problem.line(place(problem.path)) for problem in found)


def _is_missing(path: str) -> bool:
    """Whether the path is missing; one that this user may not see counts as present."""
    try:
        Path(path).stat()
    except OSError as error:
        return error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
    return False


def _reserved(key: KeyPath, path: str, engine_root: str) -> list[Problem]:
    """Return a problem if the path, with links resolved, must not be mounted."""
    real = os.path.realpath(path)
    found = reserved(real, engine_root=engine_root)
    if found is None:
        return []
    what, hint = found
    return [Problem(key, what if real == path else f"{what}, the target of {_short(path)}", hint)]


def _short(path: str) -> str:
    return path if len(path) <= _LONGEST else f"...{path[-_LONGEST:]}"
