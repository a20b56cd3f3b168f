"""`create`: submit a trial class from Python, or run it right here."""

from __future__ import annotations

from determined.experimental._create import create, create_trial_instance

__all__ = ["create", "create_trial_instance"]
