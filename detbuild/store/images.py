"""Which of the images that detbuild has built are still wanted: those of experiments that are not over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from detbuild.events import ignore
from detbuild.store.state import fold

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from detbuild.engine.protocol import ImageState
    from detbuild.events import Emit
    from detbuild.store.folder import ExperimentFolder, Header
    from detbuild.store.home import Home

BUILT_LABEL: Final = "detbuild.context"  # every image that was built for an experiment carries it


def images_in_use(home: Home, emit: Emit = ignore) -> Mapping[str, tuple[int, ...]]:
    """Ids and tags of images, and the experiments that may still start a container of them.

    A damaged experiment uses none, and `emit` is told of it: an image is built again from the same inputs.
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
    """The experiments that want an image."""
    return tuple(sorted({number for name in (image.id, *image.tags) for number in names.get(name, ())}))


def prunable(
    images: Iterable[ImageState], names: Mapping[str, tuple[int, ...]], *, before: float
) -> tuple[ImageState, ...]:
    """Images without a container that no experiment wants and that are older than `before`.

    A younger one may belong to a submission that is just being made, or to another user of the engine.
    """
    return tuple(
        image
        for image in images
        if image.created < before and not image.containers and not used_by(image, names)
    )
