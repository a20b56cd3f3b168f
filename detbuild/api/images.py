"""Images of experiments, the bases that they are built on, and commands that run in them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from detbuild.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from detbuild.api.connection import Connection
    from detbuild.api.documents import Document
    from detbuild.api.experiment import Experiment
    from detbuild.engine.protocol import ImageState
    from detbuild.events import Emit

_HOUR = 3600


def images(connection: Connection) -> list[Document]:
    """Return the elements of `detbuild image list --json`, newest first."""
    from detbuild.store.images import BUILT_LABEL, images_in_use

    names = images_in_use(connection.home, connection.emit)
    return [_document(image, names) for image in connection.connect().find_images(BUILT_LABEL)]


def _document(image: ImageState, names: Mapping[str, tuple[int, ...]]) -> Document:
    from detbuild.store.images import used_by

    return {
        "id": image.id,
        "tags": list(image.tags),
        "created": image.created,
        "size": image.size,
        "containers": image.containers,
        "experiments": list(used_by(image, names)),
        "labels": dict(image.labels),
    }


def prune(connection: Connection, *, hours: float, dry_run: bool, removed: Callable[[str, int], None]) -> int:
    """Remove unused images that are older than some hours.

    Args:
        connection: Experiments of its home that have not ended keep their images.
        hours: Newer images are kept.
        dry_run: Remove nothing.
        removed: Is called with the ID and the bytes of each removed image.

    Returns:
        The number of all images before.
    """
    from detbuild.store.images import BUILT_LABEL, images_in_use, prunable

    engine = connection.connect()
    every = engine.find_images(BUILT_LABEL)
    in_use = images_in_use(connection.home, connection.emit)
    for image in prunable(every, in_use, before=time.time() - hours * _HOUR):
        if not dry_run:
            engine.remove_image(image.id)
        removed(image.id, image.size)
    return len(every)


def ensure_base(connection: Connection, emit: Emit) -> str:
    """Find, pull or bootstrap the base of CPU experiments with this host's Python; return its tag."""
    from detbuild.context.snapshot import ContextSnapshot
    from detbuild.engine.bases import ensure_base as ensure
    from detbuild.experiment import this_host
    from detbuild.image.needs import read_needs
    from detbuild.image.resolve import Target, resolve
    from detbuild.image.table import load_table
    from detbuild.resources import images_dir

    host = this_host(connection.environ)
    resolution = resolve(
        read_needs(ContextSnapshot()),
        table=load_table(images_dir()),
        target=Target(gpu=False, python=host.python, machine=host.machine),
    )
    return ensure(resolution, connection.connect(), emit)


def bootstrap_base(connection: Connection, emit: Emit) -> str:
    """Build the base image from Debian packages and return its tag."""
    from detbuild.engine.bases import bootstrap_base as bootstrap

    return bootstrap(connection.connect(), emit)


def bases(connection: Connection) -> list[Document]:
    """Return the elements of `detbuild base list --json`."""
    from detbuild.image.table import load_table
    from detbuild.resources import images_dir

    engine = connection.connect()
    return [
        {
            "reference": base.pinned,
            "os": base.os,
            "python": base.python,
            "cuda": base.cuda or None,
            "present": engine.image_id(base.pinned) is not None,
        }
        for base in load_table(images_dir()).bases
    ]


def run_in_image(
    experiment: Experiment,
    command: Sequence[str],
    attach: Callable[[str], int],
    *,
    trial_id: int,
    slots: int | None,
    terminal: bool,
) -> int:
    """Run a command in an experiment's image, with its user, mounts and GPUs; return its exit code.

    Args:
        experiment: Has the image.
        command: The command.
        attach: Starts the container of this ID, and returns its exit code.
        trial_id: The trial that `det.get_cluster_info()` describes.
        slots: Number of GPUs; by default as many as a trial of the experiment.
        terminal: Allocate a terminal.
    """
    from detbuild.runtime.shell import create_shell

    connection, folder = experiment.connection, experiment.folder
    engine = connection.connect()
    container = create_shell(
        engine, connection.home.id, folder, command, trial_id=trial_id, slots=slots, terminal=terminal
    )
    try:
        code = attach(container)
        state = engine.inspect(container)
        if state is not None and state.error:  # docker has printed the engine's own message
            raise EngineError(
                f"{command[0]} cannot be started in the image of experiment {folder.id}",
                hint=f"inspect the image with `detbuild shell {folder.id}`",
            )
        return code
    finally:
        engine.remove(container)
