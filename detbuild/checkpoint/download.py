"""Copies a checkpoint out of its storage: verified, complete or not at all, and never through an archive."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from detbuild.checkpoint.carrier import carry
from detbuild.checkpoint.jobs import Job
from detbuild.checkpoint.transfer import draft_of, safe
from detbuild.errors import ConfigError, EngineError
from detbuild.store.files import file_errors, sync_directory
from determined._checkpoints import MANIFEST_FILE, resources, verify

if TYPE_CHECKING:
    from detbuild.checkpoint.find import Found

_FICLONE: Final = 0x40049409  # ioctl of Linux: share the blocks of a file until one of the two is written
_PIECE: Final = 1 << 30  # bytes that the kernel copies in one call


def damage(found: Found) -> list[str]:
    """What is wrong with a checkpoint, one line for each file; empty when it is whole.

    One that is in the cloud alone was whole when it was sent, and is verified when it is fetched.
    """
    if found.directory:
        return verify(found.directory)
    return [] if found.cloud else ["it is not on this host"]


def download(found: Found, target: Path) -> None:
    """Copy a checkpoint into the new directory `target`.

    Args:
        found: On this host or in the cloud.
        target: New, or empty.

    Raises:
        ConfigError: `target` is there already.
        EngineError: The checkpoint is damaged or gone, or cannot be copied.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target} is there already", mend="name a directory that is new or empty")
    problems = damage(found)
    if found.directory is None or problems:
        if found.cloud is None:
            raise _damaged(found, problems)
        job = Job(do="fetch", uuid=found.checkpoint.uuid, root=str(target.absolute()))
        try:
            carry(found.cloud, job)
        finally:  # Ctrl-C ends the process that fetches, which then cannot tidy up
            shutil.rmtree(draft_of(target), ignore_errors=True)
        return
    copy_whole(found.directory, target)


def copy_whole(source: Path, target: Path) -> None:
    """Copy what the manifest of `source` vouches for into the new directory `target`, or leave nothing.

    The copy shares no inode with its source: a run may write into its own checkpoints.

    Raises:
        EngineError: It is damaged, or cannot be copied.
    """
    with file_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            for name in (*resources(source), MANIFEST_FILE):
                _copy(source, draft, name)
            problems = verify(draft)  # it may have changed while it was copied
            if problems:
                raise EngineError(f"checkpoint {source.name} is damaged: {'; '.join(problems[:3])}")
            draft.chmod(0o755)
            draft.replace(target)
            sync_directory(target.parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def refuse_damaged(found: Found) -> None:
    """Raise EngineError unless every file of it is as it was stored."""
    problems = damage(found)
    if problems:
        raise _damaged(found, problems)


def _damaged(found: Found, problems: list[str]) -> EngineError:
    return EngineError(
        f"checkpoint {found.checkpoint.uuid} is damaged: {'; '.join(problems[:3])}",
        mend=f"`detbuild checkpoint list {found.experiment_id}` shows the others",
    )


def _copy(source: Path, target: Path, name: str) -> None:
    """Copy one regular file. A link would lead to what the manifest does not vouch for."""
    path = safe(name)
    (target / path).parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(source / path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        raise EngineError(f"cannot read {source / path}: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file, (target / path).open("xb") as copy:
        copy_content(file.fileno(), copy.fileno())
        os.fsync(copy.fileno())


def copy_content(source: int, target: int) -> None:
    """Copy an open file into an empty one: by shared blocks where the file system can, else in the kernel."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:  # another disk, or a file system without shared blocks
        _copy_blocks(source, target)


def _copy_blocks(source: int, target: int) -> None:
    try:
        while os.copy_file_range(source, target, _PIECE):
            pass
    except OSError:  # some pairs of file systems refuse it, all of it or the rest
        with os.fdopen(os.dup(source), "rb") as file, os.fdopen(os.dup(target), "wb") as copy:
            shutil.copyfileobj(file, copy, 1 << 20)
