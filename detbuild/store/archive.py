"""Archives experiments that have ended, which hides them in listings, and unarchives them."""

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
    """Archive or unarchive all of the experiments, or none.

    Raises:
        ConfigError: One has not ended, so it would use slots while it is hidden.
    """
    for folder in folders if archived else ():
        state = fold(folder.header(), folder.journal())
        if not state.over:
            raise ConfigError(
                f"experiment {folder.id} has not ended: it is {state.state.label}",
                hint=f"run `detbuild cancel {folder.id}` and `detbuild wait {folder.id}`, then archive it",
            )
    for folder in folders:
        change_attributes(folder.path, lambda attributes: replace(attributes, archived=archived))
