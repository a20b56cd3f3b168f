"""Version numbers of drivers, CUDA and Python, as comparable tuples."""

from __future__ import annotations

import re

_RELEASE = re.compile(r"v?(\d+(?:\.\d+)*)(.*)", re.IGNORECASE)

Release = tuple[int, ...]


def release(text: str) -> Release:
    """Return the numbers before any letter or plus: (2, 13, 0) for "2.13.0+cpu"; () if none."""
    match = _RELEASE.match(text.strip())
    return tuple(int(part) for part in match[1].split(".")) if match else ()


def minor(text: str) -> Release:
    return _padded(release(text), 2)[:2]


def _padded(numbers: Release, width: int) -> Release:
    return numbers + (0,) * (width - len(numbers))
