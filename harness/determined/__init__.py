"""Determined's API for user code, as detbuild carries it."""

from __future__ import annotations

from determined._errors import InvalidHP
from determined._version import __version__

__detbuild__ = __version__
