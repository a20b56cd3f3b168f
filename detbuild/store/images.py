"""Which of the images that detbuild has built are still wanted: those of experiments that are not over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from detbuild.store.state import fold

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from detbuild.engine.protocol import ImageState
    from detbuild.store.home import Home

BUILT_LABEL: Final = "detbuild.context"  # every image that was built for an experiment carries it


def wanted(home: Home) -> Mapping[str, tuple[int, ...]]:
    """Ids and tags of images, and the experiments that may still start a container of them."""
    found: dict[str, tuple[int, ...]] = {}
    for number in home.ids():
        folder = home.folder(number)
        if not folder.exists:
            continue
        header = folder.header()
        if not header.local and not fold(header, folder.journal()).over:
            for name in {header.image, header.tag} - {""}:
                found[name] = (*found.get(name, ()), number)
    return found


def wanted_by(image: ImageState, names: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
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
        if image.created < before and not image.containers and not wanted_by(image, names)
    )
