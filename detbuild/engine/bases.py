"""The base image of a build: a local one, else pulled, else built from Debian packages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from detbuild.errors import EngineError
from detbuild.events import ImagePulling
from detbuild.image.resolve import IMPORT_CHANGES, bootstrap, bootstrap_tag, can_bootstrap, choose_base
from detbuild.image.table import load_table
from detbuild.resources import images_dir

if TYPE_CHECKING:
    from detbuild.config.environment import RegistryAuth
    from detbuild.engine.protocol import Builder
    from detbuild.events import Emit
    from detbuild.image.resolve import Resolution


def ensure_base(
    resolution: Resolution,
    builder: Builder,
    emit: Emit,
    *,
    force_pull: bool = False,
    auth: RegistryAuth | None = None,
) -> str:
    """Return a base image that the builder has, pulling it or building it from Debian packages if needed.

    Raises:
        EngineError: No base image is available.
    """
    base = choose_base(resolution, lambda name: builder.image_id(name) is not None)
    if builder.image_id(base) is not None and not force_pull:
        return base
    try:
        builder.pull(base, emit, credentials=auth.credentials() if auth else None)
    except EngineError:
        made = _bootstrapped(resolution, builder, emit)
        if made is None:
            raise
        return made
    return base


def bootstrap_base(builder: Builder, emit: Emit) -> str:
    """Build the base image of this host's Debian release and return its tag.

    Raises:
        EngineError: The host is not Debian, the caller is not root, or no mirror answers.
    """
    tag = bootstrap_tag(images_dir())
    emit(ImagePulling(tag, "building from Debian packages"))
    import tempfile

    with tempfile.TemporaryDirectory(prefix="detbuild-base-") as directory:
        rootfs = Path(directory, "rootfs.tar")
        bootstrap(images_dir(), rootfs)
        builder.import_image(str(rootfs), tag=tag, changes=IMPORT_CHANGES)
    return tag


def _bootstrapped(resolution: Resolution, builder: Builder, emit: Emit) -> str | None:
    try:
        tag = bootstrap_tag(images_dir())
    except EngineError:
        return None
    if not can_bootstrap(resolution, load_table(images_dir()), tag):
        return None
    return bootstrap_base(builder, emit)
