"""Copies a checkpoint out of its storage: verified, complete or not at all, and never through an archive."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from detbuild.errors import ConfigError, EngineError
from detbuild.store.files import file_errors, sync_directory
from determined._checkpoints import MANIFEST_FILE, resources, verify

if TYPE_CHECKING:
    from detbuild.checkpoint.find import Found


def damage(found: Found) -> list[str]:
    """What is wrong with a checkpoint, one line for each file; empty when it is whole."""
    return verify(found.directory) if found.directory else ["it is not on this host"]


def download(found: Found, target: Path) -> None:
    """Copy a checkpoint into the new directory `target`.

    Raises:
        ConfigError: `target` is there already.
        EngineError: The checkpoint is damaged or gone, or cannot be copied.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target} is there already", mend="name a directory that is new or empty")
    _refuse_damaged(found, damage(found))
    assert found.directory is not None
    with file_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            for name in (*resources(found.directory), MANIFEST_FILE):
                _copy(found.directory, draft, name)
            _refuse_damaged(found, verify(draft))  # it may have changed while it was copied
            draft.chmod(0o755)
            draft.replace(target)
            sync_directory(target.parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _refuse_damaged(found: Found, problems: list[str]) -> None:
    if problems:
        what = "; ".join(problems[:3])
        raise EngineError(
            f"checkpoint {found.checkpoint.uuid} is damaged: {what}",
            mend=f"`detbuild checkpoint list {found.experiment_id}` shows the others",
        )


def _copy(source: Path, target: Path, name: str) -> None:
    """Copy one regular file. A link would lead to what the manifest does not vouch for."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise EngineError(f"a file of the checkpoint would leave its directory: {name}")
    (target / path).parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(source / path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        raise EngineError(f"cannot read {source / path}: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file, (target / path).open("xb") as copy:
        shutil.copyfileobj(file, copy, 1 << 20)
        copy.flush()
        os.fsync(copy.fileno())
