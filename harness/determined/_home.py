"""The home directory of detbuild, and how to recognize one inside a user's code."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, AnyStr

if TYPE_CHECKING:
    from collections.abc import Mapping

_ID_FILE = "home.json"
_ID = re.compile(rb'\s*\{\s*"id"\s*:\s*"[0-9a-f]{8}"\s*\}\s*')
_LONGEST = 200  # bytes


def home_of(environ: Mapping[str, str]) -> Path:
    """Return `$DETBUILD_HOME`, else `$XDG_DATA_HOME/detbuild`, else `~/.local/share/detbuild`."""
    if environ.get("DETBUILD_HOME"):
        return Path(environ["DETBUILD_HOME"]).absolute()
    if environ.get("XDG_DATA_HOME"):
        return Path(environ["XDG_DATA_HOME"], "detbuild").absolute()
    return Path(environ.get("HOME") or "~").expanduser().absolute() / ".local" / "share" / "detbuild"


def is_home(directory: AnyStr | os.PathLike[AnyStr]) -> bool:
    """Whether it has a `home.json` with only an ID, and a folder of experiments."""
    place = os.fsencode(directory)
    try:
        with open(os.path.join(place, os.fsencode(_ID_FILE)), "rb") as file:  # noqa: PTH118, PTH123  (bytes)
            return _ID.fullmatch(file.read(_LONGEST)) is not None and os.path.isdir(  # noqa: PTH112
                os.path.join(place, b"experiments")  # noqa: PTH118
            )
    except OSError:
        return False
