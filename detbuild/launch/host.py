"""What a config asks of this host: refused before anything is built, when it can never be had."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from detbuild.config.mounts import reserved
from detbuild.config.storage import SharedFs
from detbuild.errors import ConfigError
from detbuild.launch.gpus import discover, lacking
from detbuild.store.files import file_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.engine.protocol import EngineInfo


def check_host(
    config: ExperimentConfig,
    info: EngineInfo,
    nvidia_smi: Callable[[], str],
    gpus: Collection[str] | None = None,
) -> None:
    """Look for GPUs, of which `gpus` may be used, and directories to mount; make that of the checkpoints.

    Raises:
        EngineError: There are too few GPUs, or the directory cannot be made.
        ConfigError: A directory to mount is not there, or is the host's own.
    """
    slots = config.resources.slots_per_trial
    trouble = lacking(discover(info, nvidia_smi(), gpus), slots) if slots else None
    if trouble is not None:
        raise trouble
    for mount in config.bind_mounts:
        if not Path(mount.host_path).exists():
            mend = "make it, or mend its host_path: `detbuild config check` says where that is written"
            raise ConfigError(f"bind_mounts: {mount.host_path} is not there", mend=mend)
        _refuse_reserved("bind_mounts", mount.host_path, info)
    storage = config.checkpoint_storage
    if isinstance(storage, SharedFs):
        _refuse_reserved("checkpoint_storage", storage.host_path, info)
        with file_errors(Path(storage.directory)):
            Path(storage.directory).mkdir(parents=True, exist_ok=True)


def _refuse_reserved(where: str, path: str, info: EngineInfo) -> None:
    """The config is read without a look at the disk; a link may lead where no mount may."""
    real = os.path.realpath(path)
    found = reserved(real, engine_root=info.data_root)
    if found is not None:
        what, mend = found
        raise ConfigError(f"{where}: {path} leads to {real}: {what}", mend=mend)
