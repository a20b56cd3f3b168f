"""The checkpoint that a new experiment starts from, put where its runs look for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from detbuild.checkpoint.download import download
from detbuild.checkpoint.find import find_checkpoint
from detbuild.config.storage import SharedFs
from detbuild.errors import ConfigError
from detbuild.store.storage import checkpoint_storage

if TYPE_CHECKING:
    from detbuild.checkpoint.find import Found
    from detbuild.config.experiment import ExperimentConfig
    from detbuild.store.folder import ExperimentFolder
    from detbuild.store.home import Home


def source_of(config: ExperimentConfig, home: Home) -> Found | None:
    """What `searcher.source_checkpoint_uuid` means; None when there is none, or nothing to do about it.

    Raises:
        ConfigError: There is no such checkpoint.
    """
    uuid, storage = config.searcher.source_checkpoint_uuid, config.checkpoint_storage
    if uuid is None or (isinstance(storage, SharedFs) and Path(storage.directory, uuid).is_dir()):
        return None
    found = find_checkpoint(home, uuid)
    if found.checkpoint.uuid != uuid:
        raise ConfigError(
            f"searcher.source_checkpoint_uuid: {uuid} is no whole name of a checkpoint",
            mend=f"write {found.checkpoint.uuid}",
        )
    return found


def bring(source: Found | None, config: ExperimentConfig, folder: ExperimentFolder) -> None:
    """Copy it to the experiment's other checkpoints: what becomes of the old experiment does not matter then.

    Raises:
        EngineError: It is damaged or gone, or cannot be copied.
        ConfigError: The experiment's checkpoints are not on this host.
    """
    if source is None:
        return
    storage = checkpoint_storage(config, folder).on_host
    if storage is None:
        raise ConfigError(
            "searcher.source_checkpoint_uuid: the checkpoints of this experiment stay inside its container",
            mend="mount a directory of the host at checkpoint_storage.container_path with bind_mounts",
        )
    if not (storage / source.checkpoint.uuid).is_dir():
        download(source, storage / source.checkpoint.uuid)
