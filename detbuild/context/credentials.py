"""Keeps the credentials of a config out of the image, which whoever has the image could read."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from detbuild.config.masked_text import masked_text
from detbuild.config.masking import mask
from detbuild.context.snapshot import ContextSnapshot, shown
from detbuild.events import Warned
from detbuild.textfile import bodies

if TYPE_CHECKING:
    from detbuild.config.experiment import ExperimentConfig


def without_credentials(
    context: ContextSnapshot, config: ExperimentConfig, text: str
) -> tuple[ContextSnapshot, tuple[Warned, ...]]:
    """Leave out the config file itself, wherever in the context it is, if it holds secrets; and say so.

    Args:
        context: What goes into the image.
        config: As it was parsed, with what other sources brought to it.
        text: Of its file.
    """
    resolved = config.resolved()
    if mask(resolved) == resolved or masked_text(text) == text:
        return context, ()
    digests = {hashlib.sha256(body).hexdigest() for body in bodies(text)}
    held = tuple(entry for entry in context.entries if entry.sha256 in digests)
    warnings = (
        Warned(f"{shown(entry.path)} stays out of the image: it holds credentials", "name it in .detignore")
        for entry in held
    )
    return ContextSnapshot(tuple(entry for entry in context.entries if entry not in held)), tuple(warnings)
