"""The grammar of image references, checked before an engine is asked."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from detbuild.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = rf"(?:\[[0-9A-Fa-f:]+\]|{_LABEL}(?:\.{_LABEL})*)"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:{_HOST}(?::\d+)?/)?{_PART}(?:/{_PART})*(?::\w[\w.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?", re.ASCII
)


_OLDEST = (3, 10)
_DETERMINED = re.compile(r"(^|/)determinedai/environments(-dev)?$")


def check_reference(reference: str, *, key: str = "environment.image") -> str:
    """Return the reference as it is.

    Raises:
        ConfigError: It is not of the form `[host[:port]/]name[:tag][@sha256:digest]`.
    """
    if _REFERENCE.fullmatch(reference):
        return reference
    hint = "write it as [host[:port]/]name[:tag][@sha256:digest], such as python:3.11-slim"
    if _REFERENCE.fullmatch(reference.lower()):
        hint = f"names are in lower case: {reference.lower()}"
    raise ConfigError(f"{key}: {reference!r} is not an image reference", hint=hint)


def refuse_old_python(reference: str) -> None:
    """Refuse an image of Determined that can only fail in the build.

    Raises:
        ConfigError: Its tag tells that its Python is older than 3.10.
    """
    repository, _, tag = reference.partition("@")[0].rpartition(":")
    named = _DETERMINED.search(repository)
    version = _python_of(tag) if named else None
    if version is not None and version < _OLDEST:
        told = re.search(r"\bpy-(\d+\.\d+)", tag)
        python = f"Python {told[1]}" if told else "a Python before 3.10"
        raise ConfigError(
            f"environment.image: {reference} is an image of Determined with {python}; "
            "detbuild needs 3.10 or newer",
            hint="remove environment.image: detbuild then chooses a base for the frameworks of the context",
        )


def _python_of(tag: str) -> tuple[int, int] | None:
    """The Python of an image of Determined, as far as its tag tells; its frameworks date the others."""
    if python := re.search(r"\bpy-(\d+)\.(\d+)", tag):
        return int(python[1]), int(python[2])
    if torch := re.search(r"\bpytorch-(\d+)\.", tag):
        return (3, 9) if int(torch[1]) < 2 else (3, 10)  # noqa: PLR2004
    if tensorflow := re.search(r"\btf-(\d+)\.(\d+)", tag):
        return (3, 8) if (int(tensorflow[1]), int(tensorflow[2])) <= (2, 8) else None
    return None


def image_for(image: str | Mapping[str, str] | None, *, slots_per_trial: int) -> str:
    """The user's own image for this kind of device; "" when there is none."""
    if image is None or isinstance(image, str):
        return check_reference(image) if image else ""
    device = "cuda" if slots_per_trial else "cpu"
    keys = (device, "gpu", "rocm") if slots_per_trial else (device,)
    found = next(((key, image[key]) for key in keys if image.get(key)), None)
    return check_reference(found[1], key=f"environment.image.{found[0]}") if found else ""
