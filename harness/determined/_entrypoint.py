"""The two kinds of entrypoint that are one string: a trial class, and a command for the shell."""

from __future__ import annotations

import re

_TRIAL = re.compile(r"[^\s:;&|<>$'\"`()=]*:[\w.\-]*")


def names_trial(entrypoint: str) -> bool:
    """Whether an entrypoint has the form `module:Class`; the class need not exist."""
    return _TRIAL.fullmatch(entrypoint) is not None
