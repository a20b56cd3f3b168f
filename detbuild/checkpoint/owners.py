"""Ownership of checkpoints in a home: the experiment that reported a UUID first owns it until it is deleted.

User code can write any UUID into a record, so a record proves nothing. A claim is a symbolic link named by
the UUID with the experiment's number as its target, which the file system creates atomically and only once.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from detbuild.errors import DetbuildError
from detbuild.store.experiment_dir import checkpoint_storage
from detbuild.store.files import alone, file_errors, sync_directory, write_synced
from detbuild.store.state import load, run_records
from determined._contract.records import is_uuid
from determined._contract.untrusted import UntrustedDir, UntrustedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from detbuild.config.experiment import ExperimentConfig
    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.home import Home

IMPORTED: Final = 0  # not the number of any experiment
_PRESENT: Final = "present.json"  # in the experiment's folder


def claim(home: Home, uuid: str, experiment_id: int) -> int:
    """Claim a checkpoint for an experiment and return the number of its owner.

    Raises:
        EngineError: The claim cannot be written.
    """
    directory = _claims(home)
    with file_errors(directory):
        owner = _claim(directory, uuid, experiment_id)
        sync_directory(directory)
    return owner


def foreign_reason(home: Home, folder: ExperimentFolder, uuid: str) -> str:
    """Claim a reported checkpoint; return "" or why it is foreign, as a predicate ("belongs to ...").

    Raises:
        EngineError: The claim cannot be written.
    """
    if owner_of(home, uuid) != folder.id and uuid in _present(folder):
        return "was in the shared directory before the experiment"
    owner = claim(home, uuid, folder.id)
    if owner == folder.id:
        return ""
    return f"belongs to experiment {owner}" if owner else "was imported"


def note_present(config: ExperimentConfig, folder: ExperimentFolder) -> None:
    """Record which checkpoints a shared directory has before the first run of an experiment.

    Raises:
        EngineError: The record cannot be written.
    """
    root = checkpoint_storage(config, folder).on_host
    if root in {None, folder.checkpoints}:
        return
    with suppress(UntrustedError):  # the directory does not exist yet
        names = [entry.path for entry in UntrustedDir(str(root)).scan() if is_uuid(entry.path)]
        write_synced(folder.path / _PRESENT, json.dumps(names).encode())


def _present(folder: ExperimentFolder) -> frozenset[str]:
    try:
        return frozenset(json.loads((folder.path / _PRESENT).read_bytes()))
    except FileNotFoundError:  # not a shared directory, or an earlier version
        return frozenset()


def owner_of(home: Home, uuid: str) -> int | None:
    """Return the number of the experiment that owns a checkpoint; None if it is unclaimed."""
    return _read(home.owners / uuid)


def release(home: Home, uuids: Iterable[str], experiment_id: int) -> None:
    """Release the claims of an experiment that is being deleted."""
    with file_errors(home.owners):
        for uuid in uuids:
            if _read(home.owners / uuid) == experiment_id:
                with suppress(FileNotFoundError):
                    (home.owners / uuid).unlink()


def announced(folder: ExperimentFolder) -> Iterator[str]:
    """Yield the UUIDs that the runs of an experiment reported."""
    for trial in load(folder).trials.values():
        for run in run_records(folder, trial):
            for checkpoint in run.checkpoints:
                yield checkpoint.uuid


def _claim(directory: Path, uuid: str, experiment_id: int) -> int:
    try:
        (directory / uuid).symlink_to(str(experiment_id))
    except FileExistsError:
        return _read(directory / uuid) or IMPORTED
    return experiment_id


def _read(link: Path) -> int | None:
    try:
        return int(os.readlink(link))  # noqa: PTH115  (a Path would be made of the number)
    except (OSError, ValueError):
        return None


def _claims(home: Home) -> Path:
    """Return the directory of claims; on first use, claim all checkpoints reported so far, oldest first."""
    if not home.owners.is_dir():
        with alone(home.path / ".owners.lock"), file_errors(home.owners):
            if not home.owners.is_dir():
                draft = home.path / ".owners.tmp"  # left by a crash, since the lock is held
                shutil.rmtree(draft, ignore_errors=True)
                draft.mkdir(mode=0o700)
                for number in home.ids():
                    with suppress(DetbuildError, OSError):  # damaged, or not submitted to the end yet
                        for uuid in announced(home.folder(number)):
                            _claim(draft, uuid, number)
                sync_directory(draft)
                draft.rename(home.owners)
                sync_directory(home.path)
    return home.owners
