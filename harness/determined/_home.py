"""How a directory is known in which detbuild keeps experiments: it is nobody's code, and may lie among it."""

from __future__ import annotations

import os
import re
from typing import AnyStr

_ID_FILE = "home.json"
_ID = re.compile(rb'\s*\{\s*"id"\s*:\s*"[0-9a-f]{8}"\s*\}\s*')
_LONGEST = 200  # bytes


def is_home(directory: AnyStr | os.PathLike[AnyStr]) -> bool:
    """Whether it holds `home.json` with an id, and nothing else in it, and a folder of experiments."""
    place = os.fsencode(directory)
    try:
        with open(os.path.join(place, os.fsencode(_ID_FILE)), "rb") as file:  # noqa: PTH118, PTH123  (bytes)
            return _ID.fullmatch(file.read(_LONGEST)) is not None and os.path.isdir(  # noqa: PTH112
                os.path.join(place, b"experiments")  # noqa: PTH118
            )
    except OSError:
        return False
