"""`determined.common.api.errors`: what user code catches around calls of the client."""

from __future__ import annotations

from determined.common.api import errors

__all__ = ["errors"]
