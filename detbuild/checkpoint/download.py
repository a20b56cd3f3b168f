"""Copies a checkpoint from its storage to a directory: verified, and complete or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detbuild.checkpoint.transfer import (
    copy_file,
    damage_errors,
    new_directory,
    raise_if_damaged,
    sweep_drafts,
)
from detbuild.checkpoint.worker import Job, run_transfer
from detbuild.errors import ConfigError, EngineError
from determined._contract.checkpoints import MANIFEST_FILE, manifest, opened, problems, verify

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from detbuild.checkpoint.find import Found


def damage(found: Found) -> list[str]:
    """Return one problem per damaged file of a checkpoint; none if it is complete.

    A checkpoint that is only in the cloud was verified before its upload, and is again when it is fetched.
    """
    if found.checkpoint.foreign:
        return [f"it {found.checkpoint.foreign}"]
    if found.directory:
        return verify(found.directory)
    return [] if found.cloud else ["it is not on this host"]


def download(found: Found, target: Path) -> None:
    """Copy a checkpoint into the new directory `target`.

    Args:
        found: A checkpoint on this host or in the cloud.
        target: A new or empty directory.

    Raises:
        ConfigError: `target` already exists.
        EngineError: The checkpoint is damaged or deleted, or cannot be copied.
    """
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):  # allowed: the user's choice
        raise ConfigError(f"{target} already exists", hint="use a new or empty directory")
    wrong = damage(found)
    if found.cloud is None:
        raise_damage(found, wrong)
    elif found.directory is None or wrong:
        job = Job(do="fetch", uuid=found.checkpoint.uuid, root=str(target.absolute()))
        try:
            run_transfer(found.cloud, job)
        finally:  # after Ctrl-C the worker cannot clean up
            sweep_drafts(target.absolute().parent, target.name)
        return
    assert found.directory is not None  # otherwise `damage` reports it
    copy_whole(found.directory, target)


def copy_whole(source: Path, target: Path) -> None:
    """Copy the files in the manifest of `source` to the new directory `target`, all or none.

    The copy has no hard links to its source, since a run may write into its own checkpoints.

    Raises:
        EngineError: The checkpoint is damaged, or cannot be copied.
    """
    with damage_errors(source.name), opened(source) as checkpoint:
        raise_if_damaged(source.name, problems(checkpoint, content=False))
        names = (*manifest(checkpoint), MANIFEST_FILE)
        with new_directory(target) as draft:
            with damage_errors(source.name):
                for name in names:
                    copy_file(checkpoint, draft, name)
            raise_if_damaged(source.name, problems(draft))  # it may have changed while it was copied


def raise_if_unusable(found: Found) -> None:
    """Raise EngineError unless every file matches the manifest."""
    raise_damage(found, damage(found))


def raise_damage(found: Found, wrong: Sequence[str]) -> None:
    """Raise EngineError if the checkpoint has any problem."""
    if wrong:
        raise EngineError(
            f"checkpoint {found.checkpoint.uuid} is damaged: {'; '.join(wrong[:3])}",
            hint=f"run `detbuild checkpoint list {found.experiment_id}` to see the others",
        )
