"""Checkpoints on disk: directories that are complete or invisible, with a manifest to detect damage.

`store` fills a hidden directory, syncs it, writes the manifest and renames it: named checkpoints are
complete. The host reads and changes the same directories, which a run may have filled with anything. So every
file is opened beneath the checkpoint, links are not followed, and only regular files belong to a checkpoint.
Faults of the disk become a StorageError, so that they are not taken for errors of the user.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import stat
import uuid
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from determined._contract.errors import CheckpointError, StorageError
from determined._contract.untrusted import (
    Entry,
    UntrustedDir,
    UntrustedError,
    UntrustedMissingError,
    kind_of,
    reason_of,
    sized,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

MANIFEST_FILE = "manifest.json"
METADATA_FILE = "metadata.json"
LARGEST_MANIFEST = 32 << 20  # bytes; the parsed manifest is held in memory
_LARGEST_METADATA = 16 << 20
_MOST_FILES = 200_000
_LONGEST_PATH = 4096  # bytes
_SHA256 = re.compile(r"[0-9a-f]{64}")
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
DRAFTS = re.compile(rf"\.{_UUID}\.tmp|\.[0-9A-Za-z][0-9A-Za-z_.-]{{0,127}}\.[0-9a-f]{{16}}\.tmp")
_BLOCK = 1 << 20
_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE}
_FULL = {errno.ENOSPC, errno.EDQUOT}
NO_INODES = "no inodes left"
FEW_INODES = 64  # needed by a checkpoint and its records
_SCARCE = (
    1 << 20
)  # bytes: a writer that failed with less free space than this failed because the disk is full


@contextmanager
def store(root: Path, metadata: Mapping[str, object], name: str = "") -> Iterator[tuple[Path, str]]:
    """Yield an empty directory to fill and its future UUID; publish it on disk when the block ends.

    Args:
        root: holds it.
        metadata: stored with it.
        name: of the checkpoint, instead of a new UUID.

    Raises:
        StorageError: the disk is full or failing; no partial checkpoint remains.
    """
    name = name or str(uuid.uuid4())
    with storage_errors("a checkpoint", root):
        root.mkdir(parents=True, exist_ok=True)
        with drafted(root, draft_name(name)) as draft:
            yield draft, name
            _complete(draft, metadata)
            publish(draft, name)


@contextmanager
def spare(
    root: Path, metadata: Mapping[str, object], fill: Callable[[Path], object]
) -> Iterator[tuple[Path, str]]:
    """Yield the draft of a complete checkpoint and the UUID to `publish` it by; remove it after the block.

    Args:
        root: holds it.
        metadata: stored with it.
        fill: called with an empty directory.

    Raises:
        StorageError: the disk is full or failing; no partial checkpoint remains.
    """
    name = str(uuid.uuid4())
    with ExitStack() as stack:
        with storage_errors("a checkpoint", root):
            root.mkdir(parents=True, exist_ok=True)
            draft = stack.enter_context(drafted(root, draft_name(name)))
            fill(draft)
            _complete(draft, metadata)
        yield draft, name


def publish(draft: Path, name: str) -> None:
    """Make a complete checkpoint visible."""
    draft.rename(draft.with_name(name))
    sync_directory(draft.parent)


def _complete(draft: Path, metadata: Mapping[str, object]) -> None:
    with UntrustedDir(draft) as files:
        _write(files, METADATA_FILE, _encoded(dict(metadata), METADATA_FILE, _LARGEST_METADATA))
        manifest = {"files": _seal(draft, files)}
        _write(files, MANIFEST_FILE, _encoded(manifest, MANIFEST_FILE, LARGEST_MANIFEST))


def prepare(root: Path) -> None:
    """Check that checkpoints can be written, and remove drafts of dead runs.

    Raises:
        StorageError: they cannot; this fails before training instead of after it.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        if not os.access(root, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "not writable")
    except OSError as error:
        raise storage_error("checkpoints", root, error.errno or 0) from error
    sweep(root)


def draft_name(name: str) -> str:
    """Return a new, unpredictable name for the draft of a checkpoint."""
    return f".{name}.{os.urandom(8).hex()}.tmp"


@contextmanager
def drafted(root: Path, name: str) -> Iterator[Path]:
    """Make a directory, locked during the block, and remove it afterwards unless it was renamed.

    Args:
        root: holds it.
        name: from `draft_name`; `sweep` removes it if this process was killed.
    """
    lock = _made(root / name)
    try:
        yield root / name
    finally:
        with suppress(OSError):  # `sweep` removes the rest later
            UntrustedDir(root).remove_tree(name, missing_ok=True)
        os.close(lock)


def sweep(root: Path, names: re.Pattern[str] = DRAFTS) -> None:
    """Remove drafts of dead processes: a draft in use is locked, and the lock ends with its process.

    Args:
        root: holds them.
        names: pattern of the drafts' names.
    """
    below = UntrustedDir(root)
    with suppress(OSError):
        for entry in below.scan():
            if entry.is_directory and names.fullmatch(entry.path):
                _sweep(below, entry.path)


def _sweep(below: UntrustedDir, name: str) -> None:
    with suppress(OSError), below.enter(name) as draft:
        if draft.lock():
            below.remove_tree(name, missing_ok=True)


def _made(draft: Path) -> int:
    """Make the directory and lock it. On a file system without locks, drafts are not swept."""
    while True:
        draft.mkdir()
        handle = os.open(draft, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_SH)
        with suppress(FileNotFoundError):  # another process swept it before it was locked
            if os.path.samestat(draft.lstat(), os.fstat(handle)):
                return handle
        os.close(handle)


def opened(directory: Path) -> UntrustedDir:
    """Open a checkpoint for a `with` block. Its directory itself may not be a link either."""
    return UntrustedDir(directory.parent).enter(directory.name)


def verify(directory: Path) -> list[str]:
    """Return what is wrong with a checkpoint, one line for each file; empty if it is undamaged."""
    try:
        with opened(directory) as checkpoint:
            return problems(checkpoint)
    except UntrustedMissingError:
        return ["it is missing"]
    except UntrustedError as error:
        return [f"it {error.reason}"]


def problems(checkpoint: UntrustedDir, *, content: bool = True) -> list[str]:
    """Return the same for an open checkpoint.

    Args:
        checkpoint: its directory.
        content: verify the digests of all files too, not only their sizes.
    """
    try:
        expected = manifest(checkpoint)
    except UntrustedError as error:
        missing = isinstance(error, UntrustedMissingError)
        return [f"{MANIFEST_FILE} {'cannot be read: it ' if missing else ''}{error.reason}"]
    except ValueError as error:
        return [f"{MANIFEST_FILE} cannot be read: {error}"]
    try:
        found = {entry.path: entry for entry in checkpoint.walk() if entry.path != MANIFEST_FILE}
    except UntrustedError as error:
        return [f"it cannot be listed: {error}"]
    strange = [
        f"{path} is not in {MANIFEST_FILE}"
        for path, entry in found.items()
        if not (entry.is_directory or path in expected)
    ]
    for path, entry in found.items():
        if not entry.is_file and (path in expected or not entry.is_directory):
            strange.append(f"{path} {_not_regular(entry)}")
    for path, (size, sha256) in expected.items():
        problem = _problem(checkpoint, found.get(path), size, sha256 if content else "")
        strange += [f"{path} {problem}"] if problem else []
        strange += [f"{path} is missing"] if path not in found else []
    return sorted(strange)


def resources(directory: Path) -> dict[str, int]:
    """Return the files of a complete checkpoint with their sizes in bytes."""
    with opened(directory) as checkpoint:
        return {path: size for path, (size, _) in manifest(checkpoint).items()}


def read_metadata(directory: Path) -> dict[str, object]:
    """Return the checkpoint's metadata; empty if unreadable."""
    try:
        with opened(directory) as checkpoint:
            found = json.loads(checkpoint.read(METADATA_FILE, _LARGEST_METADATA))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def steps_completed(directory: Path) -> int:
    """Return the batches trained before the checkpoint; 0 if not recorded."""
    steps = read_metadata(directory).get("steps_completed", 0)
    return steps if isinstance(steps, int) else 0


def located(reference: str | os.PathLike[str], *roots: Path) -> Path:
    """Return the directory of a checkpoint that is given by its ID or its path.

    Args:
        reference: an ID or a directory.
        roots: directories that hold checkpoints.

    Raises:
        CheckpointError: not found.
    """
    name = os.fspath(reference)
    inside = [root / name for root in roots] if name and Path(name).name == name else []
    for path in (Path(name), *inside):
        if name and path.is_dir():
            return path
    known = ", ".join(map(str, roots[:3])) or "any checkpoint directory"
    raise CheckpointError(
        f"no checkpoint {name}: neither a directory nor a checkpoint ID in {known}",
        hint="pass the directory of a checkpoint, or an ID from `detbuild checkpoint list`",
    )


def first_whole(root: Path, uuids: Sequence[str], *, unsealed: bool = False) -> tuple[str, dict[str, str]]:
    """Return the first undamaged checkpoint, and the damage of each one before it.

    Args:
        root: holds them.
        uuids: in the order of preference.
        unsealed: also accept one without a manifest, as Determined wrote them.

    Raises:
        CheckpointError: all of them are damaged.
    """
    rejected: dict[str, str] = {}
    for name in uuids:
        found = [] if unsealed and _is_unsealed(root / name) else verify(root / name)
        if not found:
            return name, rejected
        rejected[name] = "; ".join(found[:3])
    listing = "".join(f"\n  {name}: {why}" for name, why in rejected.items())
    raise CheckpointError(
        f"all checkpoints to resume from are damaged:{listing}",
        hint=f"restore one of them under {root} from a backup, or start a new experiment",
    )


def manifest(checkpoint: UntrustedDir) -> dict[str, tuple[int, str]]:
    """Return size and SHA-256 of each file of a checkpoint, by its path.

    Raises:
        UntrustedError: the manifest is missing, not a regular file, or too large.
        ValueError: it is not a manifest.
    """
    return parse_manifest(checkpoint.read(MANIFEST_FILE, LARGEST_MANIFEST))


def parse_manifest(body: bytes) -> dict[str, tuple[int, str]]:
    """Parse a manifest; raise ValueError for anything else."""
    if body.count(b"{") + body.count(b"[") > 4 * _MOST_FILES:  # each takes far more space in memory
        raise ValueError("it has too many parts")
    try:
        raw = json.loads(body)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    files = raw.get("files") if isinstance(raw, dict) else None
    if not isinstance(files, dict):
        raise ValueError("it has no `files` map of paths to sizes and digests")  # noqa: TRY004
    if len(files) > _MOST_FILES:
        raise ValueError(f"it lists more than {_MOST_FILES} files")
    return {_path(path): _entry(path, entry) for path, entry in files.items()}


def _path(path: str) -> str:
    parts = path.split("/")
    try:
        size = len(os.fsencode(path))
    except UnicodeEncodeError:
        size = 0
    if not 0 < size <= _LONGEST_PATH or "\0" in path or not {"", ".", ".."}.isdisjoint(parts):
        raise ValueError(f"{path[:100]!r} is not a valid file path")
    return path


def _entry(path: str, entry: object) -> tuple[int, str]:
    size, sha256 = (entry.get("size"), entry.get("sha256")) if isinstance(entry, dict) else (None, None)
    if type(size) is not int or not 0 <= size < 1 << 63:
        raise ValueError(f"{path[:100]!r} has no size")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise ValueError(f"{path[:100]!r} has no sha256")
    return size, sha256


def _is_unsealed(directory: Path) -> bool:
    """Whether another program wrote it: detbuild writes a manifest before it publishes a checkpoint."""
    try:
        with opened(directory) as checkpoint:
            return not checkpoint.exists(MANIFEST_FILE)
    except UntrustedError:
        return False


def _seal(directory: Path, files: UntrustedDir) -> dict[str, dict[str, object]]:
    """Sync every file and directory below, and return size and digest of each file."""
    _replace_links(directory, files)
    sealed: dict[str, dict[str, object]] = {}
    for entry in _files(files):
        if not entry.is_file:
            raise CheckpointError(
                f"{entry.path} in the checkpoint {_not_regular(entry)}",
                hint="save regular files only in the trial and its callbacks",
            )
        with files.open(entry.path) as file:
            size, sha256 = _digest(file)
            os.fsync(file.fileno())
        sealed[entry.path] = {"size": size, "sha256": sha256}
    if len(sealed) > _MOST_FILES:
        raise CheckpointError(
            f"the checkpoint holds more than {_MOST_FILES} files",
            hint="pack small files into larger ones",
        )
    for path in [entry.path for entry in files.walk() if entry.is_directory]:
        files.sync(path)
    files.sync()
    return sealed


def _replace_links(directory: Path, files: UntrustedDir) -> None:
    """Replace each link by a copy of its target, so that the checkpoint is self-contained."""
    for path in [entry.path for entry in files.walk() if stat.S_ISLNK(entry.status.st_mode)]:
        if not (directory / path).is_file():
            raise CheckpointError(
                f"{path} in the checkpoint is a broken link",
                hint="save files instead of links in the trial and its callbacks",
            )
        with (directory / path).open("rb") as source:
            files.replace(path, iter(lambda: source.read(_BLOCK), b""), mode=0o666, sync=False)


def _files(checkpoint: UntrustedDir) -> list[Entry]:
    """Return all files below except the manifest, by path."""
    found = (entry for entry in checkpoint.walk() if not entry.is_directory)
    return sorted((entry for entry in found if entry.path != MANIFEST_FILE), key=lambda entry: entry.path)


def _digest(file: BinaryIO, limit: int | None = None) -> tuple[int, str]:
    """Return size and SHA-256; stop soon after the limit, since the file may be growing."""
    import hashlib  # loads OpenSSL, which a listing needs not

    digest, size = hashlib.sha256(), 0
    while (limit is None or size <= limit) and (block := file.read(_BLOCK)):
        digest.update(block)
        size += len(block)
    return size, digest.hexdigest()


def _not_regular(entry: Entry) -> str:
    return f"is not a regular file: {kind_of(entry.status.st_mode)}"


def _problem(checkpoint: UntrustedDir, entry: Entry | None, size: int, sha256: str) -> str:
    """Return what is wrong with an existing file; compare the content if a digest is given."""
    if entry is None or not entry.is_file:
        return ""
    if entry.status.st_size != size:
        return f"has {entry.status.st_size} bytes instead of {size}"
    if not sha256:
        return ""
    try:
        with checkpoint.open(entry.path) as file:
            return "" if _digest(file, size)[1] == sha256 else "differs from the stored content"
    except UntrustedError as error:
        return error.reason
    except OSError as error:
        return f"cannot be read: {reason_of(error)}"


def _encoded(value: object, name: str, limit: int) -> bytes:
    body = json.dumps(value, indent=2, sort_keys=True).encode()
    if len(body) > limit:
        raise CheckpointError(
            f"{name} of the checkpoint is larger than {sized(limit)}",
            hint="store large values in separate files",
        )
    return body


def _write(files: UntrustedDir, name: str, body: bytes) -> None:
    files.replace(name, body, mode=0o666)


def sync_directory(directory: Path) -> None:
    """Sync the directory's entries to disk."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def storage_errors(what: str, place: Path) -> Iterator[None]:
    """Convert a fault of the disk of `place` to a StorageError; re-raise other errors unchanged."""
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        fault = _fault(error, place)
        if fault is None:
            raise
        raise storage_error(what, place, fault) from error


def storage_error(what: str, place: Path, fault: int) -> StorageError:
    reason = os.strerror(fault)
    if fault in _FULL and lacks_inodes(place):
        reason = NO_INODES
        hint = f"remove files there, check with `df -i {place}`; earlier files are intact"
    elif fault in _FULL:
        hint = f"free space on the disk of {place}; earlier files are intact"
    else:
        hint = f"check the disk of {place}"
    return StorageError(f"cannot write {what} under {place}: {reason}", hint=hint)


def no_inodes(place: Path) -> bool:
    """Whether the disk of a path has no free inodes; False for a file system without a limit."""
    return _inodes(place) == 0


def lacks_inodes(place: Path) -> bool:
    """Whether a full disk lacked inodes instead of space; a few of them may have been freed since."""
    inodes = _inodes(place)
    return inodes is not None and inodes < FEW_INODES and not _lacks_space(place)


def _inodes(place: Path) -> int | None:
    try:
        state = os.statvfs(place)
    except OSError:
        return None
    return state.f_favail if state.f_files > 0 else None


def _fault(error: BaseException, place: Path) -> int | None:
    """Return the errno of the disk fault that caused the error.

    Writers such as torch.save convert ENOSPC to a RuntimeError, so the free space is checked too.
    """
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.errno in _FAULTS:
            return link.errno
        link = link.__cause__ or link.__context__
    return errno.ENOSPC if isinstance(error, RuntimeError) and _is_full(place) else None


def _is_full(place: Path) -> bool:
    return no_inodes(place) or _lacks_space(place)


def _lacks_space(place: Path) -> bool:
    try:
        state = os.statvfs(place)
    except OSError:
        return False
    return state.f_bavail * state.f_frsize < _SCARCE
