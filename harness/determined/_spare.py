"""The note about a spare checkpoint, with which the supervisor records it if the worker was killed."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from determined._records import Checkpoint
from determined._run_info import SPARE_FILE

if TYPE_CHECKING:
    from determined._event_file import EventFile
    from determined._run_info import RunInfo


def encode_spare(draft: Path, checkpoint: Checkpoint) -> bytes:
    """Encode the note: the checkpoint's draft, and its record."""
    return json.dumps({"draft": draft.name, "checkpoint": asdict(checkpoint)}, default=str).encode()


def announce_spare(info: RunInfo, events: EventFile) -> None:
    """Publish and record the spare checkpoint of a killed worker."""
    note = Path(info.run_dir) / SPARE_FILE
    if not note.is_file():
        return
    from determined import _checkpoints

    found = json.loads(note.read_bytes())
    checkpoint = Checkpoint(**found["checkpoint"])
    draft = Path(info.checkpoint_dir) / Path(found["draft"]).name
    if draft.is_dir():  # otherwise it was recorded already
        _checkpoints.publish(draft, checkpoint.uuid)
        events.append(checkpoint)
    note.unlink()
