"""Directories of detbuild's data files: next to the package in a checkout, inside it in a wheel."""

from __future__ import annotations

from pathlib import Path

import determined

_PACKAGE = Path(__file__).resolve().parent


def templates_dir() -> Path:
    return _data("templates")


def images_dir() -> Path:
    return _data("images")


def harness_dir() -> Path:
    """The `determined` package itself, not the site-packages around it."""
    return Path(determined.__file__).resolve().parent


def _data(name: str) -> Path:
    inside = _PACKAGE / "_data" / name
    return inside if inside.is_dir() else _PACKAGE.parent / name
