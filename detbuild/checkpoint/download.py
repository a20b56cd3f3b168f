"""Copies a checkpoint out of its storage: verified, complete or not at all, and never through an archive."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from detbuild.checkpoint.carrier import carry
from detbuild.checkpoint.jobs import Job
from detbuild.checkpoint.transfer import draft_of, safe
from detbuild.errors import ConfigError, EngineError
from detbuild.store.files import file_errors, sync_directory
from determined._checkpoints import MANIFEST_FILE, resources, verify

if TYPE_CHECKING:
    from detbuild.checkpoint.find import Found


def damage(found: Found) -> list[str]:
    """What is wrong with a checkpoint, one line for each file; empty when it is whole.

    One that is in the cloud alone was whole when it was sent, and is verified when it is fetched.
    """
    if found.directory:
        return verify(found.directory)
    return [] if found.cloud else ["it is not on this host"]


def download(found: Found, target: Path, *, link: bool = False) -> None:
    """Copy a checkpoint into the new directory `target`.

    Args:
        found: On this host or in the cloud.
        target: New, or empty.
        link: Its files may be hard links to those that are on this host: nobody may write into them.

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
    copy_whole(found.directory, target, link=link)


def copy_whole(source: Path, target: Path, *, link: bool) -> None:
    """Copy what the manifest of `source` vouches for into the new directory `target`, or leave nothing.

    Raises:
        EngineError: It is damaged, or cannot be copied.
    """
    with file_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            for name in (*resources(source), MANIFEST_FILE):
                _copy(source, draft, name, link=link)
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


def _copy(source: Path, target: Path, name: str, *, link: bool) -> None:
    """Copy one regular file. A link would lead to what the manifest does not vouch for."""
    path = safe(name)
    (target / path).parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(source / path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        raise EngineError(f"cannot read {source / path}: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        if link and _linked(source / path, target / path):
            return
        with (target / path).open("xb") as copy:
            shutil.copyfileobj(file, copy, 1 << 20)
            copy.flush()
            os.fsync(copy.fileno())


def _linked(source: Path, target: Path) -> bool:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        return False  # another disk, or one without hard links
    return True
