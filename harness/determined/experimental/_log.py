"""What `create` says while it works: lines of the era's form, `LEVEL: message`."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from detbuild.cli.show import lines_of
from detbuild.errors import DetbuildError
from detbuild.events import Event, RunRecord, Warned
from determined._records import Stage, StageEntered

if TYPE_CHECKING:
    from collections.abc import Iterator

LOG = logging.getLogger("determined.experimental")
_STAGES = {
    Stage.IMPORT: "Importing the trial",
    Stage.BUILD: "Creating the trial",
    Stage.TRAIN: "Training one batch",
    Stage.VALIDATE: "Validating one batch",
    Stage.CHECKPOINT: "Saving a checkpoint",
    Stage.RESTORE: "Restoring the checkpoint",
}


@contextmanager
def logged() -> Iterator[None]:
    """Show what is logged, unless the program has set up logging of its own."""
    if LOG.hasHandlers():
        yield
        return
    handler, level = logging.StreamHandler(), LOG.level
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(level)


@contextmanager
def explained() -> Iterator[None]:
    """Add the mend to an error's text: nobody but Python shows it."""
    try:
        yield
    except DetbuildError as error:
        if error.mend and error.mend not in str(error):
            error.args = (f"{error}\n  mend: {error.mend}",)
        raise


def note_ignored(name: str, value: object, *, why: str) -> None:
    if value is not None:
        LOG.info("%s is ignored: %s", name, why)


def tell(event: Event) -> None:
    """Log an event of a full training."""
    if isinstance(event, Warned):
        LOG.warning("%s%s", event.message, f"; {event.mend}" if event.mend else "")
        return
    for line in lines_of(event):
        LOG.info("%s", line)


def tell_stages(event: Event) -> None:
    """Log an event of the minimal loop, which is short enough for every stage."""
    match event:
        case RunRecord(_, _, StageEntered(stage)):
            LOG.info("%s", _STAGES[stage])
        case _:
            tell(event)
