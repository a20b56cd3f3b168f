"""Gets the code of an experiment back out of its image, whatever became of the directory since."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from detbuild.checkpoint.transfer import sweep_drafts
from detbuild.engine.protocol import ContainerSpec, Mount
from detbuild.errors import ConfigError, EngineError
from detbuild.launch.plan import HOME_LABEL, user_of
from detbuild.store.files import file_errors
from detbuild.store.storage import WORK_DIR
from determined._checkpoints import draft_name, drafted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from detbuild.engine.protocol import Engine
    from detbuild.store.folder import ExperimentFolder
    from detbuild.store.home import Home

_TARGET: Final = "/run/detbuild/code"
_COPY: Final = (
    "import shutil, sys; shutil.copytree(sys.argv[1], sys.argv[2], symlinks=True, dirs_exist_ok=True)"
)
_PATIENCE: Final = 300.0  # seconds for a copy


def download_code(home: Home, folder: ExperimentFolder, target: Path, connect: Callable[[], Engine]) -> None:
    """Copy the work directory of the experiment's image into the new directory `target`.

    Raises:
        ConfigError: `target` is there already, or the experiment has no image: it ran on this host itself.
        EngineError: The image is gone, or its files cannot be copied.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):  # allowed: where the user wants it
        raise ConfigError(f"{target} is there already", hint="name a directory that is new or empty")
    header = folder.header()
    if header.local:
        raise ConfigError(
            f"experiment {folder.id} ran on this host itself, in {header.context_dir}: no copy of it was made"
        )
    engine = connect()
    image = engine.image_id(header.image) or engine.image_id(header.tag)
    if image is None:
        raise EngineError(
            f"the image of experiment {folder.id} is gone: {header.tag}",
            hint=f"checkpoints hold a copy of the code in `code`: see `detbuild checkpoint list {folder.id}`",
        )
    with file_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)  # allowed: where the user wants it
        above = target.parent.resolve()  # allowed: where the user wants it
        sweep_drafts(above, target.name)
        with drafted(above, draft_name(target.name)) as draft:
            _copy(engine, home, image, draft, user_of(engine.info(), header.user))
            draft.replace(target)  # allowed: a new directory itself


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
        state = engine.wait(container, timeout=_PATIENCE)
        if state is None or state.exit_code:
            said = "\n".join(engine.output_tail(container, 5))
            raise EngineError(f"cannot copy the code out of the image {image[:19]}:\n{said}")
    finally:
        engine.remove(container)
