"""Finds experiment images that are unused: no experiment that has not ended needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from detbuild.events import ignore
from detbuild.store.state import fold

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from detbuild.engine.protocol import ImageState
    from detbuild.events import Emit
    from detbuild.store.experiment_dir import ExperimentFolder, Header
    from detbuild.store.home import Home

BUILT_LABEL: Final = "detbuild.context"  # label of each image built for an experiment


def images_in_use(home: Home, emit: Emit = ignore) -> Mapping[str, tuple[int, ...]]:
    """Map ids and tags of images to the experiments that may still start a container from them.

    A damaged experiment counts as unused, with a warning to `emit`: the image can be rebuilt.
    """
    found: dict[str, tuple[int, ...]] = {}
    for header in filter(None, home.each(_unfinished, emit, oldest_first=True)):
        for name in {header.image, header.tag} - {""}:
            found[name] = (*found.get(name, ()), header.id)
    return found


def _unfinished(folder: ExperimentFolder) -> Header | None:
    header = folder.header()
    return None if header.local or fold(header, folder.journal()).over else header


def used_by(image: ImageState, names: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Return the experiments that use an image."""
    return tuple(sorted({number for name in (image.id, *image.tags) for number in names.get(name, ())}))


def prunable(
    images: Iterable[ImageState], names: Mapping[str, tuple[int, ...]], *, before: float
) -> tuple[ImageState, ...]:
    """Return the unused images without a container that are older than `before`.

    A newer one may belong to a submission in progress, or to another user of the engine.
    """
    return tuple(
        image
        for image in images
        if image.created < before and not image.containers and not used_by(image, names)
    )
