"""`determined.common.api.errors`: errors of the client that user code catches."""

from __future__ import annotations

from determined.common.api import errors

__all__ = ["errors"]
