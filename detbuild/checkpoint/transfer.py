"""Whole checkpoints to a bucket and back.

A checkpoint in the cloud is there when its manifest is: it is written last and removed first. Whatever
crashes in between leaves files that nobody takes for a checkpoint, and the same call again finishes the work.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from detbuild.errors import EngineError
from detbuild.store.files import file_errors, sync_directory
from determined._checkpoints import MANIFEST_FILE, resources, verify

if TYPE_CHECKING:
    from collections.abc import Collection

    from detbuild.checkpoint.bucket import Bucket


class DamagedError(EngineError):
    """The checkpoint is not whole, so trying again does not help."""


def is_name(uuid: str) -> bool:
    """Whether it can be the name of a checkpoint: user code may have written any record."""
    return re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,127}", uuid) is not None


def upload(directory: Path, bucket: Bucket) -> None:
    """Copy a checkpoint to the bucket. Files of it that are there already are not sent again.

    Raises:
        DamagedError: It is not whole on this host; nothing was sent.
    """
    uuid = directory.name
    _refuse(uuid, verify(directory))
    wanted = resources(directory)
    there = bucket.sizes(uuid)
    for path, size in wanted.items():
        if not stat.S_ISREG((directory / path).lstat().st_mode):
            raise DamagedError(f"checkpoint {uuid}: {path} is no regular file")
        if there.get(path) != size:  # a file appears as a whole or not at all, and never changes
            bucket.put(directory / path, uuid, path)
    bucket.put(directory / MANIFEST_FILE, uuid, MANIFEST_FILE)
    there = bucket.sizes(uuid)
    missing = [path for path, size in wanted.items() if there.get(path) != size]
    if missing or MANIFEST_FILE not in there:
        raise OSError(f"{missing[0] if missing else MANIFEST_FILE} was sent, but is not there")


def fetch(uuid: str, bucket: Bucket, target: Path) -> None:
    """Copy a checkpoint of the bucket to the new directory `target`, verified, or leave nothing.

    Raises:
        DamagedError: It is not there, or not whole.
    """
    draft = draft_of(target)
    shutil.rmtree(draft, ignore_errors=True)
    manifest = bucket.read(uuid, MANIFEST_FILE)
    if manifest is None:
        raise DamagedError(f"checkpoint {uuid} is not in the cloud")
    with file_errors(target):
        draft.mkdir(parents=True)
        try:
            (draft / MANIFEST_FILE).write_bytes(manifest)
            for path in _paths(uuid, draft):
                (draft / path).parent.mkdir(parents=True, exist_ok=True)
                try:
                    bucket.get(uuid, str(path), draft / path)
                except FileNotFoundError:
                    raise DamagedError(f"checkpoint {uuid}: {path} is not in the cloud") from None
            _refuse(uuid, verify(draft))
            _sync(draft)
            draft.rename(target)
            sync_directory(target.parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def draft_of(target: Path) -> Path:
    """Where a checkpoint is put together that will be `target`."""
    return target.with_name(f".{target.name}.fetched")


def bring_back(uuid: str, bucket: Bucket, root: Path) -> None:
    """See to it that a checkpoint is whole in the directory `root` of this host.

    Raises:
        DamagedError: It is whole neither there nor in the cloud.
    """
    if not verify(root / uuid):
        return
    remove_local(root, uuid)  # it may be there and damaged
    fetch(uuid, bucket, root / uuid)


def remove(uuid: str, bucket: Bucket) -> None:
    """Remove a checkpoint from the bucket."""
    bucket.remove(uuid, MANIFEST_FILE)
    for path in bucket.sizes(uuid):
        bucket.remove(uuid, path)


def remove_files(uuid: str, bucket: Bucket, paths: Collection[str]) -> None:
    """Remove some files of a checkpoint from the bucket; the rest is a whole checkpoint."""
    manifest = bucket.read(uuid, MANIFEST_FILE)
    if manifest is not None:
        bucket.write(uuid, MANIFEST_FILE, without(manifest, paths))
    for path in paths:
        bucket.remove(uuid, path)


def remove_local(root: Path, uuid: str) -> None:
    """Remove the copy on this host, its name first: half a checkpoint under its name would look damaged."""
    if not is_name(uuid):
        return
    directory, aside = root / uuid, root / f".{uuid}.deleted"
    with file_errors(directory):
        shutil.rmtree(aside, ignore_errors=True)  # of an earlier crash
        with suppress(FileNotFoundError):
            directory.rename(aside)
            sync_directory(root)
            shutil.rmtree(aside)


def remove_local_files(root: Path, uuid: str, paths: Collection[str]) -> None:
    """Remove some files of the copy on this host, if there is one; the rest is a whole checkpoint."""
    directory = root / uuid
    manifest = directory / MANIFEST_FILE
    if not manifest.is_file():
        return
    with file_errors(directory):
        draft = directory / f".{MANIFEST_FILE}.tmp"
        draft.write_bytes(without(manifest.read_bytes(), paths))
        draft.replace(manifest)
        for path in paths:
            with suppress(FileNotFoundError):
                (directory / safe(path)).unlink()
        sync_directory(directory)


def sweep(root: Path) -> None:
    """Remove what crashes have left of checkpoints that were fetched or removed. Nobody else may be at it."""
    for left in (*root.glob(".*.fetched"), *root.glob(".*.deleted")):
        shutil.rmtree(left, ignore_errors=True)


def without(manifest: bytes, paths: Collection[str]) -> bytes:
    """The manifest without these files."""
    raw = json.loads(manifest)
    raw["files"] = {path: entry for path, entry in raw["files"].items() if path not in paths}
    return json.dumps(raw, indent=2, sort_keys=True).encode()


def safe(name: str) -> PurePosixPath:
    """A path of a manifest, if it stays in the directory that it is put into."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise DamagedError(f"a file of the checkpoint would leave its directory: {name}")
    return path


def _paths(uuid: str, directory: Path) -> list[PurePosixPath]:
    try:
        return [safe(name) for name in resources(directory)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"checkpoint {uuid}: its manifest cannot be read: {error}") from error


def _sync(directory: Path) -> None:
    for parent, _, names in os.walk(directory):
        for name in names:
            with Path(parent, name).open("rb") as file:
                os.fsync(file.fileno())
        sync_directory(Path(parent))


def _refuse(uuid: str, problems: list[str]) -> None:
    if problems:
        raise DamagedError(f"checkpoint {uuid} is damaged: {'; '.join(problems[:3])}")
