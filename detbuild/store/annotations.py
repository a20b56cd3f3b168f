"""Checkpoint metadata that was edited after the checkpoint was stored: `annotations.json` of an experiment.

The checkpoint itself is sealed by its manifest and never changes.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from detbuild.store.files import alone, write_synced
from detbuild.store.reading import as_map, read_document

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Metadata = Mapping[str, object]

_FILE: Final = "annotations.json"


def metadata_of(experiment: Path, uuid: str, stored: Metadata) -> Metadata:
    """Return the edited metadata of a checkpoint, or else what was `stored` with it.

    Raises:
        EngineError: The file is damaged.
    """
    found = _read(experiment).get(uuid)
    return stored if found is None else found


def change_metadata(
    experiment: Path, uuid: str, stored: Metadata, change: Callable[[Metadata], Metadata]
) -> Metadata:
    """Apply `change` to the metadata on disk, under a lock."""
    with alone(experiment / ".attributes.lock"):
        everything = _read(experiment)
        changed = dict(change(everything.get(uuid, stored)))
        text = json.dumps({**everything, uuid: changed}, indent=2)
        write_synced(experiment / _FILE, text.encode() + b"\n")
    return changed


def _read(experiment: Path) -> dict[str, Metadata]:
    try:
        return read_document(experiment / _FILE, _of_checkpoints, hint="repair it, or remove it")
    except FileNotFoundError:
        return {}


def _of_checkpoints(raw: object) -> dict[str, Metadata]:
    found: dict[str, Metadata] = {}
    for uuid, metadata in as_map(raw).items():
        if not isinstance(metadata, dict):
            raise ValueError(f"has metadata of {uuid[:40]} that are not a map")  # noqa: TRY004
        found[uuid] = metadata
    return found
