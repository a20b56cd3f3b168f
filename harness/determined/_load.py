"""Finds the trial class that an entrypoint names, in the context directory."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from determined._errors import LoadError


def load_trial_class(entrypoint: str, context_dir: Path, context_name: str) -> type:
    """Import the module from the context and give the class.

    Raises:
        LoadError: it cannot be imported, or is not a trial class.
    """
    module, _, name = entrypoint.partition(":")
    sys.path.insert(0, str(context_dir))
    found = getattr(importlib.import_module(module), name, None)
    if not isinstance(found, type):
        raise LoadError(f"{entrypoint} is not a class")
    return found


def names_trial(entrypoint: str) -> bool:
    """Whether an entrypoint is `module:Class`, and not a command for the shell."""
    return ":" in entrypoint and " " not in entrypoint
