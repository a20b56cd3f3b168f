"""What a config asks of this host: refused before anything is built, when the host can never give it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from detbuild.config.mounts import reserved
from detbuild.config.problems import ConfigErrors, KeyPath, Problem
from detbuild.config.storage import SharedFs
from detbuild.launch.gpus import discover, shortage_error
from detbuild.store.files import file_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.engine.protocol import EngineInfo


_LONGEST: Final = 40  # characters of a path in a message


def nowhere(_path: KeyPath) -> str:
    """The place of a value whose text is not known."""
    return ""


def check_host(
    config: ExperimentConfig,
    info: EngineInfo,
    nvidia_smi: Callable[[], str],
    *,
    gpus: Collection[str] | None = None,
    place: Callable[[KeyPath], str] = nowhere,
) -> None:
    """Look for GPUs, of which `gpus` may be used, and directories to mount; make that of the checkpoints.

    Args:
        config: Of the experiment.
        info: Of the engine.
        nvidia_smi: What `nvidia-smi -L` says.
        gpus: Those that may be used; None for all.
        place: Where the config has the value of a key, in words.

    Raises:
        EngineError: There are too few GPUs, or the directory cannot be made.
        ConfigError: A directory to mount is missing, or belongs to the host itself.
    """
    slots = config.resources.slots_per_trial
    trouble = shortage_error(discover(info, nvidia_smi(), gpus), slots) if slots else None
    if trouble is not None:
        raise trouble
    check_mounts(config, place, engine_root=info.data_root)
    storage = config.checkpoint_storage
    if isinstance(storage, SharedFs):
        with file_errors(Path(storage.directory)):
            Path(storage.directory).mkdir(parents=True, exist_ok=True)


def check_mounts(
    config: ExperimentConfig, place: Callable[[KeyPath], str] = nowhere, *, engine_root: str = ""
) -> None:
    """Refuse what cannot be mounted, all of it at once; makes nothing.

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
    """What this user may not see, the engine may."""
    try:
        Path(path).stat()
    except OSError as error:
        return error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
    return False


def _reserved(key: KeyPath, path: str, engine_root: str) -> list[Problem]:
    """The config is read without a look at the disk; a link may lead where no mount may."""
    real = os.path.realpath(path)
    found = reserved(real, engine_root=engine_root)
    if found is None:
        return []
    what, hint = found
    return [Problem(key, what if real == path else f"{what}, where {_short(path)} leads", hint)]


def _short(path: str) -> str:
    return path if len(path) <= _LONGEST else f"...{path[-_LONGEST:]}"
