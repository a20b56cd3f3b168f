"""Where the checkpoints of an experiment are: as its runs see it, and on the host."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from detbuild.config.storage import Directory, SharedFs
from detbuild.engine.protocol import Mount
from detbuild.store.submitted import config_of

if TYPE_CHECKING:
    from detbuild.config.experiment import ExperimentConfig
    from detbuild.config.mounts import BindMount
    from detbuild.store.folder import ExperimentFolder

WORK_DIR: Final = "/run/determined/workdir"
OWN_DIR: Final = "/run/detbuild/checkpoints"
SHARED_DIR: Final = "/determined_shared_fs"  # Determined's own name: code may know it


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointStorage:
    in_run: str
    on_host: Path | None  # None: inside the container alone, gone with it
    mount: Mount | None = None


def checkpoint_storage(config: ExperimentConfig, folder: ExperimentFolder) -> CheckpointStorage:
    """Decide it; on their way to a bucket they are in the experiment's own folder."""
    storage = config.checkpoint_storage
    if isinstance(storage, SharedFs):
        below = posixpath.relpath(storage.directory, posixpath.normpath(storage.host_path))
        return CheckpointStorage(
            in_run=posixpath.normpath(posixpath.join(SHARED_DIR, below)),
            on_host=Path(storage.directory),
            mount=Mount(source=storage.host_path, target=SHARED_DIR, propagation=storage.propagation),
        )
    if isinstance(storage, Directory):
        inside = in_container(storage.container_path)
        return CheckpointStorage(in_run=inside, on_host=_behind(inside, config.bind_mounts))
    own = Mount(source=str(folder.checkpoints), target=OWN_DIR)
    return CheckpointStorage(in_run=OWN_DIR, on_host=folder.checkpoints, mount=own)


def in_container(path: str) -> str:
    """A path of the config as the container has it: relative ones lie below the work directory."""
    return posixpath.normpath(posixpath.join(WORK_DIR, path))


def _behind(inside: str, mounts: tuple[BindMount, ...]) -> Path | None:
    """The host's directory that a path in the container shows, through the innermost mount that holds it."""
    places = sorted(((in_container(m.container_path), m.host_path) for m in mounts), reverse=True)
    for target, source in places:
        if inside == target or inside.startswith(f"{target}/"):
            return Path(source) / posixpath.relpath(inside, target)
    return None


def storage_of(folder: ExperimentFolder) -> CheckpointStorage:
    """Where the checkpoints of a submitted experiment are."""
    return checkpoint_storage(config_of(folder), folder)
