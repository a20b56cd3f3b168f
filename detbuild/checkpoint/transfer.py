"""Whole checkpoints to a bucket and back.

A checkpoint in the cloud is there when its manifest is: it is written last and removed first. Whatever
crashes in between leaves files that nobody takes for a checkpoint, and the same call again finishes the work.
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
from determined._checkpoints import (
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
from determined._untrusted import UntrustedDir, UntrustedError, UntrustedMissingError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from detbuild.checkpoint.bucket import Bucket

_OWNER: Final = "owner"  # in the manifest of a checkpoint in a bucket
_NAME: Final = r"[0-9A-Za-z][0-9A-Za-z_.-]{0,127}"
_OLD_DRAFTS: Final = r"fetched|[a-z0-9_]{8}"  # of versions that did not lock them
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
_FICLONE: Final = 0x40049409  # ioctl of Linux: share the blocks of a file until one of the two is written
_PIECE: Final = 1 << 30  # bytes that the kernel copies in one call


class DamagedError(EngineError):
    """The checkpoint is not whole, so trying again does not help."""


class ForeignError(EngineError):
    """The checkpoint belongs to another experiment; the text says why, as what `it` does."""


def is_name(uuid: str) -> bool:
    """Whether it can be the name of a checkpoint: user code may have written any record."""
    return re.fullmatch(_NAME, uuid) is not None


def raise_if_foreign(uuid: str, bucket: Bucket, owner: str) -> None:
    """Raise ForeignError unless the name is free in the bucket, or the manifest there names the owner."""
    body = bucket.read(uuid, MANIFEST_FILE)
    if body is not None and _owner(body) != owner:
        raise ForeignError(f"belongs to {_words(_owner(body))} in the bucket")
    if body is None and bucket.sizes(uuid):
        raise ForeignError(f"belongs to {_words('')} in the bucket")


def is_own(uuid: str, bucket: Bucket, owner: str, *, unsigned: bool) -> bool:
    """Whether what the bucket holds under this name may be changed by an experiment.

    Args:
        uuid: Of the checkpoint.
        bucket: That may hold it.
        owner: The experiment, as HOME/NUMBER.
        unsigned: Whether files are the experiment's own where no manifest says whose they are.
    """
    body = bucket.read(uuid, MANIFEST_FILE)
    signed = _owner(body) if body is not None else ""
    return signed == owner if signed else unsigned


def upload(directory: Path, bucket: Bucket, owner: str = "") -> None:
    """Copy a checkpoint to the bucket. Files of it that are there already are not sent again.

    Args:
        directory: Of the checkpoint on this host.
        bucket: In which its name was free, or is the owner's.
        owner: The experiment, as HOME/NUMBER; the manifest in the bucket names it.

    Raises:
        DamagedError: It is not whole on this host; nothing was sent.
        ForeignError: Another experiment has uploaded one of this name meanwhile.
    """
    uuid = directory.name
    raise_if_damaged(uuid, verify(directory))
    if not is_own(uuid, bucket, owner, unsigned=True):
        raise_if_foreign(uuid, bucket, owner)
    with opened(directory) as checkpoint:
        wanted = {path: size for path, (size, _) in manifest(checkpoint).items()}
        there = bucket.sizes(uuid)
        for path, size in wanted.items():
            if there.get(path) != size:  # a file appears as a whole or not at all, and never changes
                with checkpoint.open(path) as file:
                    bucket.put(path_of(file), uuid, path)
        body = checkpoint.read(MANIFEST_FILE, LARGEST_MANIFEST)
        bucket.write(uuid, MANIFEST_FILE, _signed(body, owner))
    there = bucket.sizes(uuid)
    missing = [path for path, size in wanted.items() if there.get(path) != size]
    if missing or MANIFEST_FILE not in there:
        raise OSError(f"{missing[0] if missing else MANIFEST_FILE} was sent, but is not there")


def fetch(uuid: str, bucket: Bucket, target: Path) -> None:
    """Copy a checkpoint of the bucket to the new directory `target`, verified, or leave nothing.

    Raises:
        DamagedError: It is not there, or not whole.
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
                    bucket.get(uuid, path, path_of(file))
                except FileNotFoundError:
                    raise DamagedError(f"checkpoint {uuid}: {path} is not in the cloud") from None
        raise_if_damaged(uuid, problems(draft))


@contextmanager
def new_directory(target: Path) -> Iterator[UntrustedDir]:
    """Give a draft to fill; after the block it is `target`, on disk, or nothing is left of it."""
    with file_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)  # allowed: chosen by the caller
        sweep_drafts(target.parent, target.name)
        with drafted(target.parent, draft_name(target.name)) as directory:
            with opened(directory) as draft:
                yield draft
                for path in [entry.path for entry in draft.walk()]:
                    draft.sync(path)
                draft.sync()
            beside = UntrustedDir(target.parent)
            beside.rename(directory.name, target.name)
            beside.sync()


def path_of(file: BinaryIO) -> Path:
    """A path to an open file, for libraries that open paths: whatever has the file's name by now."""
    return Path(f"/proc/self/fd/{file.fileno()}")


def restore_files(uuid: str, bucket: Bucket, root: Path) -> None:
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
    """Remove some files of a checkpoint from the bucket; the rest is a whole checkpoint.

    Raises:
        DamagedError: It has no manifest that can be read; nothing was removed.
    """
    body = bucket.read(uuid, MANIFEST_FILE)
    if body is not None:
        bucket.write(uuid, MANIFEST_FILE, without(uuid, body, paths))
    for path in paths:
        bucket.remove(uuid, path)


def remove_local(root: Path, uuid: str) -> None:
    """Remove the copy on this host, its name first: half a checkpoint under its name would look damaged.

    What has the name is removed as what it is: a link itself, and not what it leads to.
    """
    if not is_name(uuid):
        return
    below = UntrustedDir(root)
    aside = f".{uuid}.deleted"
    with file_errors(root / uuid), suppress(UntrustedMissingError):
        below.remove_tree(aside, missing_ok=True)  # of an earlier crash
        if not below.is_directory(uuid):
            below.unlink(uuid)
            return
        below.rename(uuid, aside)
        below.sync()
        below.remove_tree(aside)


def remove_local_files(root: Path, uuid: str, paths: Collection[str]) -> None:
    """Remove some files of the copy on this host, if there is one; the rest is a whole checkpoint.

    Raises:
        DamagedError: It is not as its manifest says; nothing was removed.
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
    """Raise DamagedError where `remove_local_files` would."""
    if UntrustedDir(root).exists(uuid):
        with _removable(root, uuid, paths):
            pass


@contextmanager
def _removable(root: Path, uuid: str, paths: Collection[str]) -> Iterator[UntrustedDir]:
    """A checkpoint that is held open, when it is as its manifest says."""
    with ExitStack() as held:
        with damage_errors(uuid):
            checkpoint = held.enter_context(opened(root / uuid))
        raise_if_damaged(uuid, _other_damage(checkpoint, paths))
        yield checkpoint


def _other_damage(checkpoint: UntrustedDir, paths: Collection[str]) -> list[str]:
    """What is wrong with it but for files that an earlier removal of the same paths has left or removed."""
    removed = {f"{path} {why}" for path in paths for why in ("is missing", f"is not in {MANIFEST_FILE}")}
    return [problem for problem in problems(checkpoint, content=False) if problem not in removed]


def sweep_drafts(root: Path, name: str = "") -> None:
    """Remove what crashes have left of checkpoints that were fetched, copied or removed.

    Args:
        root: Holds them.
        name: Of a checkpoint, where all else in the directory is not detbuild's.
    """
    of_one = re.compile(rf"\.{re.escape(name)}\.(?:[0-9a-f]{{16}}\.tmp|{_OLD_DRAFTS})")
    sweep(root, of_one if name else _LEFT)


def without(uuid: str, body: bytes, paths: Collection[str]) -> bytes:
    """The manifest without these files."""
    with damage_errors(uuid):
        kept = {path for path in parse_manifest(body) if path not in paths}
    raw = json.loads(body)
    raw["files"] = {path: entry for path, entry in raw["files"].items() if path in kept}
    return json.dumps(raw, indent=2, sort_keys=True).encode()


def raise_if_damaged(uuid: str, found: Sequence[str]) -> None:
    """Raise DamagedError if there is any."""
    if found:
        raise DamagedError(f"checkpoint {uuid} is damaged: {'; '.join(found[:3])}")


@contextmanager
def damage_errors(uuid: str) -> Iterator[None]:
    """Take what is missing or cannot be part of a checkpoint for damage; other errors are the disk's."""
    try:
        yield
    except (UntrustedError, ValueError) as error:
        if isinstance(error, OSError) and error.errno not in _DAMAGE:
            raise  # of the disk
        raise DamagedError(f"checkpoint {uuid} is damaged: {error}") from error


def _signed(body: bytes, owner: str) -> bytes:
    """A manifest that says who uploaded it, whatever the run wrote there."""
    raw = {"files": json.loads(body)["files"], **({_OWNER: owner} if owner else {})}
    return json.dumps(raw, indent=2, sort_keys=True).encode()


def _owner(body: bytes) -> str:
    """HOME/NUMBER of who uploaded a manifest; "" where it does not say."""
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    owner = raw.get(_OWNER) if isinstance(raw, dict) else None
    return owner if isinstance(owner, str) else ""


def _words(owner: str) -> str:
    home, _, number = owner.partition("/")
    return f"experiment {number} of home {home}" if owner else "an experiment that cannot be told"


def _new_file(draft: UntrustedDir, path: str) -> BinaryIO:
    above, _, _ = path.rpartition("/")
    if above:
        draft.make_directory(above, mode=0o777, exist_ok=True)
    return draft.create(path, mode=0o666)


def copy_file(source: UntrustedDir, draft: UntrustedDir, path: str) -> None:
    """Copy one file of a checkpoint; the copy shares no inode with it."""
    with source.open(path) as file, _new_file(draft, path) as copy:
        copy_content(file.fileno(), copy.fileno())


def _paths(uuid: str, body: bytes) -> list[str]:
    try:
        return list(parse_manifest(body))
    except ValueError as error:
        raise DamagedError(f"checkpoint {uuid}: its manifest cannot be read: {error}") from error


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
            shutil.copyfileobj(file, copy, 1 << 20)  # allowed: between open files
