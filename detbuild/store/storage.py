"""The checkpoint directory of an experiment, in its runs and on the host."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from detbuild.config.storage import Directory, SharedFs
from detbuild.engine.protocol import Mount
from detbuild.store.submitted import config_of

if TYPE_CHECKING:
    from detbuild.config.environment import BindMount
    from detbuild.config.experiment import ExperimentConfig
    from detbuild.store.folder import ExperimentFolder

WORK_DIR: Final = "/run/determined/workdir"
OWN_DIR: Final = "/run/detbuild/checkpoints"
SHARED_DIR: Final = "/determined_shared_fs"  # the same as in Determined: user code may rely on it


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointStorage:
    in_run: str
    on_host: Path | None  # None: only inside the container, and lost with it
    mount: Mount | None = None


def checkpoint_storage(config: ExperimentConfig, folder: ExperimentFolder) -> CheckpointStorage:
    """Return the checkpoint directory; before the upload to a bucket it is in the experiment's folder."""
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
    """Return a path of the config as seen in the container, relative to the work directory."""
    return posixpath.normpath(posixpath.join(WORK_DIR, path))


def _behind(inside: str, mounts: tuple[BindMount, ...]) -> Path | None:
    """Return the host's directory of a path in the container, through its innermost mount."""
    places = sorted(((in_container(m.container_path), m.host_path) for m in mounts), reverse=True)
    for target, source in places:
        if inside == target or inside.startswith(f"{target}/"):
            return Path(source) / posixpath.relpath(inside, target)
    return None


def storage_of(folder: ExperimentFolder) -> CheckpointStorage:
    """Return the checkpoint directory of a submitted experiment."""
    return checkpoint_storage(config_of(folder), folder)
