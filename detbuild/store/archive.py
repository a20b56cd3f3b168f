"""Leaves experiments that have ended out of listings, and puts them back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from detbuild.errors import ConfigError
from detbuild.store.attributes import change_attributes
from detbuild.store.state import fold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detbuild.store.folder import ExperimentFolder


def set_archived(folders: Sequence[ExperimentFolder], *, archived: bool) -> None:
    """Do it with all of them, or with none.

    Raises:
        ConfigError: One has not ended: nobody would see it any more, and it holds slots or will.
    """
    for folder in folders if archived else ():
        state = fold(folder.header(), folder.journal())
        if not state.over:
            raise ConfigError(
                f"experiment {folder.id} has not ended: it is {state.state.label}",
                hint=f"`detbuild cancel {folder.id}`, `detbuild wait {folder.id}`, then archive it",
            )
    for folder in folders:
        change_attributes(folder.path, lambda attributes: replace(attributes, archived=archived))
