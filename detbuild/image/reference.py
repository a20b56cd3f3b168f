"""Checks image references before an engine is used."""

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
    hint = "write it as [host[:port]/]name[:tag][@sha256:digest], e.g. python:3.11-slim"
    if _REFERENCE.fullmatch(reference.lower()):
        hint = f"use lower case: {reference.lower()}"
    raise ConfigError(f"{key}: {reference!r} is not a valid image reference", hint=hint)


def check_python(reference: str) -> None:
    """Reject an image of Determined whose Python is too old.

    Raises:
        ConfigError: Its tag implies a Python before 3.10.
    """
    repository, _, tag = reference.partition("@")[0].rpartition(":")
    named = _DETERMINED.search(repository)
    version = _python_of(tag) if named else None
    if version is not None and version < _OLDEST:
        named_version = re.search(r"\bpy-(\d+\.\d+)", tag)
        python = f"Python {named_version[1]}" if named_version else "a Python before 3.10"
        raise ConfigError(
            f"environment.image: {reference} is an image of Determined with {python}; "
            "detbuild needs 3.10 or newer",
            hint="remove environment.image, so that detbuild chooses a base for the context's frameworks",
        )


def _python_of(tag: str) -> tuple[int, int] | None:
    """Return the Python of an image of Determined, by its tag: explicit, or implied by its framework."""
    if python := re.search(r"\bpy-(\d+)\.(\d+)", tag):
        return int(python[1]), int(python[2])
    if torch := re.search(r"\bpytorch-(\d+)\.", tag):
        return (3, 9) if int(torch[1]) < 2 else (3, 10)  # noqa: PLR2004
    if tensorflow := re.search(r"\btf-(\d+)\.(\d+)", tag):
        return (3, 8) if (int(tensorflow[1]), int(tensorflow[2])) <= (2, 8) else None
    return None


def image_for(image: str | Mapping[str, str] | None, *, slots_per_trial: int) -> str:
    """Return the user's own image for this device; "" if none."""
    if image is None or isinstance(image, str):
        return check_reference(image) if image else ""
    device = "cuda" if slots_per_trial else "cpu"
    keys = (device, "gpu", "rocm") if slots_per_trial else (device,)
    found = next(((key, image[key]) for key in keys if image.get(key)), None)
    return check_reference(found[1], key=f"environment.image.{found[0]}") if found else ""
