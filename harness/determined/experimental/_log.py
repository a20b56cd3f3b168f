"""Log lines of `create`, in Determined's form `LEVEL: message`."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from detbuild.errors import DetbuildError
from detbuild.events import Event, RunRecord, Warned
from detbuild.progress import lines_of
from determined._contract.records import Stage, StageEntered
from determined.experimental._say import LOG

if TYPE_CHECKING:
    from collections.abc import Iterator

_STAGES = {
    Stage.IMPORT: "Importing the trial",
    Stage.BUILD: "Creating the trial",
    Stage.TRAIN: "Training one batch",
    Stage.VALIDATE: "Validating one batch",
    Stage.CHECKPOINT: "Saving a checkpoint",
    Stage.RESTORE: "Restoring the checkpoint",
}


@contextmanager
def explained() -> Iterator[None]:
    """Add the hint to an error's text, for Python's traceback."""
    try:
        yield
    except DetbuildError as error:
        if error.hint and error.hint not in str(error):
            error.args = (f"{error}\n  hint: {error.hint}",)
        raise


def log_event(event: Event) -> None:
    """Log an event of a full training."""
    if isinstance(event, Warned):
        LOG.warning("%s%s", event.message, f"; {event.hint}" if event.hint else "")
        return
    for line in lines_of(event):
        LOG.info("%s", line)


def log_stage(event: Event) -> None:
    """Log an event of the minimal loop, with every stage, since it is short."""
    match event:
        case RunRecord(_, _, StageEntered(stage)):
            LOG.info("%s", _STAGES[stage])
        case _:
            log_event(event)
