"""Transfers complete checkpoints to and from a bucket.

A checkpoint exists in the cloud if its manifest does, which is written last and removed first. A crash leaves
files that are not a checkpoint, and repeating the call finishes the work.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from detbuild.errors import EngineError
from detbuild.store.files import file_errors
from determined._contract.checkpoints import (
    DRAFTS,
    LARGEST_MANIFEST,
    MANIFEST_FILE,
    draft_name,
    drafted,
    manifest,
    opened,
    parse_manifest,
    problems,
    sweep,
    verify,
)
from determined._contract.untrusted import UntrustedDir, UntrustedError, UntrustedMissingError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from detbuild.checkpoint.bucket import CheckpointBucket

_OWNER: Final = "owner"  # in the manifest of a checkpoint in a bucket
_NAME: Final = r"[0-9A-Za-z][0-9A-Za-z_.-]{0,127}"
_OLD_DRAFTS: Final = r"fetched|[a-z0-9_]{8}"  # of versions without locks on drafts
_LEFT: Final = re.compile(rf"{DRAFTS.pattern}|\.{_NAME}\.(?:fetched|deleted)")
_DAMAGE: Final = frozenset(
    {
        errno.EINVAL,
        errno.ENOENT,
        errno.ELOOP,
        errno.ENOTDIR,
        errno.ENXIO,
        errno.EFBIG,
        errno.EOVERFLOW,
        errno.EACCES,
    }
)
_FICLONE: Final = 0x40049409  # Linux ioctl: clone a file copy-on-write
_PIECE: Final = 1 << 30  # bytes per call of copy_file_range


class DamagedError(EngineError):
    """The checkpoint is damaged, so retrying does not help."""


class ForeignError(EngineError):
    """The checkpoint belongs to another experiment; the text is a predicate ("belongs to ...")."""


def is_name(uuid: str) -> bool:
    """Whether it is a valid checkpoint name; user code may have written any text into a record."""
    return re.fullmatch(_NAME, uuid) is not None


def raise_if_foreign(uuid: str, bucket: CheckpointBucket, owner: str) -> None:
    """Raise ForeignError unless the name is unused in the bucket, or the manifest there has the owner."""
    body = bucket.read(uuid, MANIFEST_FILE)
    if body is not None and _owner(body) != owner:
        raise ForeignError(f"belongs to {_words(_owner(body))} in the bucket")
    if body is None and bucket.sizes(uuid):
        raise ForeignError(f"belongs to {_words('')} in the bucket")


def is_own(uuid: str, bucket: CheckpointBucket, owner: str, *, unsigned: bool) -> bool:
    """Whether an experiment may change the files of a checkpoint in the bucket.

    Args:
        owner: The experiment, as HOME/NUMBER.
        unsigned: The result if no manifest names an owner.
    """
    body = bucket.read(uuid, MANIFEST_FILE)
    signed = _owner(body) if body is not None else ""
    return signed == owner if signed else unsigned


def upload(directory: Path, bucket: CheckpointBucket, owner: str = "") -> None:
    """Upload a checkpoint, without the files that are already in the bucket.

    Args:
        directory: The checkpoint on this host.
        owner: The experiment, as HOME/NUMBER, which is added to the manifest in the bucket.

    Raises:
        DamagedError: The checkpoint is damaged on this host; nothing was sent.
        ForeignError: Another experiment has uploaded a checkpoint of this name.
    """
    uuid = directory.name
    raise_if_damaged(uuid, verify(directory))
    if not is_own(uuid, bucket, owner, unsigned=True):
        raise_if_foreign(uuid, bucket, owner)
    with opened(directory) as checkpoint:
        expected = {path: size for path, (size, _) in manifest(checkpoint).items()}
        there = bucket.sizes(uuid)
        for path, size in expected.items():
            if there.get(path) != size:  # uploads are atomic, and files never change
                with checkpoint.open(path) as file:
                    bucket.put(_path_of(file), uuid, path)
        body = checkpoint.read(MANIFEST_FILE, LARGEST_MANIFEST)
        bucket.write(uuid, MANIFEST_FILE, _signed(body, owner))
    there = bucket.sizes(uuid)
    missing = [path for path, size in expected.items() if there.get(path) != size]
    if missing or MANIFEST_FILE not in there:
        raise OSError(f"{missing[0] if missing else MANIFEST_FILE} was sent, but not found")


def fetch(uuid: str, bucket: CheckpointBucket, target: Path) -> None:
    """Download a checkpoint to the new directory `target` and verify it; leave nothing on an error.

    Raises:
        DamagedError: The checkpoint is not in the bucket, or damaged.
    """
    body = bucket.read(uuid, MANIFEST_FILE)
    if body is None:
        raise DamagedError(f"checkpoint {uuid} is not in the cloud")
    with new_directory(target) as draft:
        with draft.create(MANIFEST_FILE, mode=0o666) as file:
            file.write(body)
        for path in _paths(uuid, body):
            with _new_file(draft, path) as file:
                try:
                    bucket.get(uuid, path, _path_of(file))
                except FileNotFoundError:
                    raise DamagedError(f"checkpoint {uuid}: {path} is not in the cloud") from None
        raise_if_damaged(uuid, problems(draft))


@contextmanager
def new_directory(target: Path) -> Iterator[UntrustedDir]:
    """Give a draft directory, which is renamed to `target` after the block, or removed on an error."""
    with file_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)  # allowed: chosen by the caller
        sweep_drafts(target.parent, target.name)
        with drafted(target.parent, draft_name(target.name)) as directory:
            with opened(directory) as draft:
                yield draft
                for path in [entry.path for entry in draft.walk()]:
                    draft.sync(path)
                draft.sync()
            parent = UntrustedDir(target.parent)
            parent.rename(directory.name, target.name)
            parent.sync()


def _path_of(file: BinaryIO) -> Path:
    """Return a path to an open file, for libraries that open paths; immune to renames."""
    return Path(f"/proc/self/fd/{file.fileno()}")


def restore_files(uuid: str, bucket: CheckpointBucket, root: Path) -> None:
    """Ensure that a checkpoint is complete in `root`; fetch it from the bucket if it is not.

    Raises:
        DamagedError: It is damaged or missing in both places.
    """
    if not verify(root / uuid):
        return
    remove_local(root, uuid)  # a damaged copy
    fetch(uuid, bucket, root / uuid)


def remove(uuid: str, bucket: CheckpointBucket) -> None:
    """Remove a checkpoint from the bucket."""
    bucket.remove(uuid, MANIFEST_FILE)
    for path in bucket.sizes(uuid):
        bucket.remove(uuid, path)


def remove_files(uuid: str, bucket: CheckpointBucket, paths: Collection[str]) -> None:
    """Remove some files of a checkpoint from the bucket; the rest is a complete checkpoint.

    Raises:
        DamagedError: Its manifest cannot be read; nothing was removed.
    """
    body = bucket.read(uuid, MANIFEST_FILE)
    if body is not None:
        bucket.write(uuid, MANIFEST_FILE, without(uuid, body, paths))
    for path in paths:
        bucket.remove(uuid, path)


def remove_local(root: Path, uuid: str) -> None:
    """Remove the copy on this host: rename it first, since a half-removed checkpoint would look damaged.

    A link is removed itself, not its target.
    """
    if not is_name(uuid):
        return
    below = UntrustedDir(root)
    aside = f".{uuid}.deleted"
    with file_errors(root / uuid), suppress(UntrustedMissingError):
        below.remove_tree(aside, missing_ok=True)  # left by a crash
        if not below.is_directory(uuid):
            below.unlink(uuid)
            return
        below.rename(uuid, aside)
        below.sync()
        below.remove_tree(aside)


def remove_local_files(root: Path, uuid: str, paths: Collection[str]) -> None:
    """Remove some files of the copy on this host, if any; the rest is a complete checkpoint.

    Raises:
        DamagedError: It does not match its manifest; nothing was removed.
    """
    if not UntrustedDir(root).exists(uuid):
        return
    with file_errors(root / uuid), _removable(root, uuid, paths) as checkpoint:
        body = checkpoint.read(MANIFEST_FILE, LARGEST_MANIFEST)
        checkpoint.replace(MANIFEST_FILE, without(uuid, body, paths), mode=0o666)
        for path in paths:
            checkpoint.unlink(path, missing_ok=True)
        checkpoint.sync()


def raise_if_unremovable(root: Path, uuid: str, paths: Collection[str]) -> None:
    """Raise DamagedError if `remove_local_files` would."""
    if UntrustedDir(root).exists(uuid):
        with _removable(root, uuid, paths):
            pass


@contextmanager
def _removable(root: Path, uuid: str, paths: Collection[str]) -> Iterator[UntrustedDir]:
    """Open a checkpoint that matches its manifest."""
    with ExitStack() as held:
        with damage_errors(uuid):
            checkpoint = held.enter_context(opened(root / uuid))
        raise_if_damaged(uuid, _other_damage(checkpoint, paths))
        yield checkpoint


def _other_damage(checkpoint: UntrustedDir, paths: Collection[str]) -> list[str]:
    """List the problems, except those that an interrupted removal of the same paths explains."""
    removed = {f"{path} {why}" for path in paths for why in ("is missing", f"is not in {MANIFEST_FILE}")}
    return [problem for problem in problems(checkpoint, content=False) if problem not in removed]


def sweep_drafts(root: Path, name: str = "") -> None:
    """Remove drafts that crashes left behind while checkpoints were fetched, copied or removed.

    Args:
        root: The directory of the checkpoints.
        name: Only drafts of this checkpoint, if the directory is not detbuild's own.
    """
    of_one = re.compile(rf"\.{re.escape(name)}\.(?:[0-9a-f]{{16}}\.tmp|{_OLD_DRAFTS})")
    sweep(root, of_one if name else _LEFT)


def without(uuid: str, body: bytes, paths: Collection[str]) -> bytes:
    """Return the manifest without these files."""
    with damage_errors(uuid):
        kept = {path for path in parse_manifest(body) if path not in paths}
    raw = json.loads(body)
    raw["files"] = {path: entry for path, entry in raw["files"].items() if path in kept}
    return json.dumps(raw, indent=2, sort_keys=True).encode()


def raise_if_damaged(uuid: str, found: Sequence[str]) -> None:
    """Raise DamagedError if any problems were found."""
    if found:
        raise DamagedError(f"checkpoint {uuid} is damaged: {'; '.join(found[:3])}")


@contextmanager
def damage_errors(uuid: str) -> Iterator[None]:
    """Translate missing or invalid files to DamagedError; pass other disk errors through."""
    try:
        yield
    except (UntrustedError, ValueError) as error:
        if isinstance(error, OSError) and error.errno not in _DAMAGE:
            raise
        raise DamagedError(f"checkpoint {uuid} is damaged: {error}") from error


def _signed(body: bytes, owner: str) -> bytes:
    """Return the manifest with the owner of the upload, whatever the run wrote there."""
    raw = {"files": json.loads(body)["files"], **({_OWNER: owner} if owner else {})}
    return json.dumps(raw, indent=2, sort_keys=True).encode()


def _owner(body: bytes) -> str:
    """Return the owner in a manifest, as HOME/NUMBER; "" if it has none."""
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    owner = raw.get(_OWNER) if isinstance(raw, dict) else None
    return owner if isinstance(owner, str) else ""


def _words(owner: str) -> str:
    home, _, number = owner.partition("/")
    return f"experiment {number} of home {home}" if owner else "an unknown experiment"


def _new_file(draft: UntrustedDir, path: str) -> BinaryIO:
    above, _, _ = path.rpartition("/")
    if above:
        draft.make_directory(above, mode=0o777, exist_ok=True)
    return draft.create(path, mode=0o666)


def copy_file(source: UntrustedDir, draft: UntrustedDir, path: str) -> None:
    """Copy one file of a checkpoint, not as a hard link."""
    with source.open(path) as file, _new_file(draft, path) as copy:
        copy_content(file.fileno(), copy.fileno())


def _paths(uuid: str, body: bytes) -> list[str]:
    try:
        return list(parse_manifest(body))
    except ValueError as error:
        raise DamagedError(f"checkpoint {uuid}: its manifest cannot be read: {error}") from error


def copy_content(source: int, target: int) -> None:
    """Copy an open file to an empty one: as a copy-on-write clone if possible, otherwise in the kernel."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:  # another disk, or a file system without clones
        _copy_blocks(source, target)


def _copy_blocks(source: int, target: int) -> None:
    try:
        while os.copy_file_range(source, target, _PIECE):
            pass
    except OSError:  # not supported between some file systems, or not for all of the file
        with os.fdopen(os.dup(source), "rb") as file, os.fdopen(os.dup(target), "wb") as copy:
            shutil.copyfileobj(file, copy, 1 << 20)  # allowed: between open files
