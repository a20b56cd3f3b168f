"""Where the files that detbuild brings along are: in a checkout beside the package, in a wheel inside it."""

from __future__ import annotations

from pathlib import Path

import determined

_PACKAGE = Path(__file__).resolve().parent


def templates_dir() -> Path:
    return _data("templates")


def images_dir() -> Path:
    return _data("images")


def harness_dir() -> Path:
    """The `determined` package itself, without its neighbours in site-packages."""
    return Path(determined.__file__).resolve().parent


def _data(name: str) -> Path:
    inside = _PACKAGE / "_data" / name
    return inside if inside.is_dir() else _PACKAGE.parent / name
