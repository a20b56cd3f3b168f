"""Copies the code of an experiment out of its image."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from detbuild.checkpoint.transfer import sweep_drafts
from detbuild.engine.protocol import ContainerSpec, Mount
from detbuild.errors import ConfigError, EngineError
from detbuild.runtime.docker import container_user
from detbuild.runtime.labels import HOME_LABEL
from detbuild.store.experiment_dir import WORK_DIR
from detbuild.store.files import file_errors
from determined._contract.checkpoints import draft_name, drafted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from detbuild.engine.protocol import Engine
    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.home import Home

_TARGET: Final = "/run/detbuild/code"
_COPY: Final = (
    "import shutil, sys; shutil.copytree(sys.argv[1], sys.argv[2], symlinks=True, dirs_exist_ok=True)"
)
_TIMEOUT: Final = 300.0  # seconds for a copy


def download_code(home: Home, folder: ExperimentFolder, target: Path, connect: Callable[[], Engine]) -> None:
    """Copy the work directory of the experiment's image into the new directory `target`.

    Raises:
        ConfigError: `target` exists and is not empty, or the experiment is local and has no image.
        EngineError: The image is missing, or its files cannot be copied.
    """
    new = not target.exists()  # allowed: a path given by the user
    if not (new or (target.is_dir() and not any(target.iterdir()))):  # allowed: as above too
        raise ConfigError(f"{target} already exists", hint="choose a new or empty directory")
    header = folder.header()
    if header.local:
        raise ConfigError(
            f"experiment {folder.id} ran in {header.context_dir}, not in an image: no copy was made"
        )
    engine = connect()
    image = engine.image_id(header.image) or engine.image_id(header.tag)
    if image is None:
        raise EngineError(
            f"the image of experiment {folder.id} was removed: {header.tag}",
            hint=f"use the copy in `code` of a checkpoint: see `detbuild checkpoint list {folder.id}`",
        )
    with file_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)  # allowed: a path given by the user
        above = target.parent.resolve()  # allowed: a path given by the user
        sweep_drafts(above, target.name)
        with drafted(above, draft_name(target.name)) as draft:
            _copy(engine, home, image, draft, container_user(engine.info(), header.user))
            draft.replace(target)  # allowed: a directory that was just made


def _copy(engine: Engine, home: Home, image: str, draft: Path, user: str) -> None:
    spec = ContainerSpec(
        name=f"detbuild-{home.id}-code-{secrets.token_hex(4)}",
        image=image,
        entrypoint=("python3", "-c", _COPY, WORK_DIR, _TARGET),
        user=user,
        mounts=(Mount(source=str(draft), target=_TARGET),),
        network="none",
        labels={HOME_LABEL: home.id},
    )
    container = engine.create(spec)
    try:
        engine.start(container)
        state = engine.wait(container, timeout=_TIMEOUT)
        if state is None or state.exit_code:
            output = "\n".join(engine.output_tail(container, 5))
            raise EngineError(f"cannot copy the code out of the image {image[:19]}:\n{output}")
    finally:
        engine.remove(container)
