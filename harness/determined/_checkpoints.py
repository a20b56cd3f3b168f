"""Checkpoints on disk: directories that are complete or invisible, with a manifest that tells damage.

`store` fills a hidden directory, syncs it, writes the manifest and renames: what bears a uuid is whole.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from determined._disk import storage_error, storage_errors, sync_directory
from determined._errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MANIFEST_FILE = "manifest.json"
METADATA_FILE = "metadata.json"
_DRAFTS = ".*.tmp"
_BLOCK = 1 << 20


@contextmanager
def store(root: Path, metadata: Mapping[str, object]) -> Iterator[tuple[Path, str]]:
    """Give an empty directory to fill and the uuid it will have; after the block it is visible and on disk.

    Raises:
        StorageError: the disk is full or failing; nothing is left of the checkpoint.
    """
    name = str(uuid.uuid4())
    draft = root / f".{name}.tmp"
    with storage_errors("a checkpoint", root):
        root.mkdir(parents=True, exist_ok=True)
        draft.mkdir()
        lock = _lock(draft)
        try:
            yield draft, name
            _write_json(draft / METADATA_FILE, dict(metadata))
            _write_json(draft / MANIFEST_FILE, {"files": _seal(draft)})
            sync_directory(draft)
            draft.rename(root / name)
            sync_directory(root)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        finally:
            os.close(lock)


def prepare(root: Path) -> None:
    """Make sure that checkpoints can be written, and sweep away the drafts of runs that died.

    Raises:
        StorageError: they cannot; better told before the training than after it.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        if not os.access(root, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "not writable")
    except OSError as error:
        raise storage_error("checkpoints", root, error.errno or 0) from error
    _sweep(root)


def _sweep(root: Path) -> None:
    """A draft of a living run is locked; the lock of a dead one is gone."""
    for draft in root.glob(_DRAFTS):
        with suppress(OSError):
            lock = os.open(draft, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(draft, ignore_errors=True)
            finally:
                os.close(lock)


def verify(directory: Path) -> list[str]:
    """What is wrong with a checkpoint, one line for each file; empty when it is whole."""
    if not directory.is_dir():
        return ["it is missing"]
    try:
        expected = _manifest(directory)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"{MANIFEST_FILE} cannot be read: {error}"]
    found = _files(directory)
    problems = [f"{path} is not in {MANIFEST_FILE}" for path in found if path not in expected]
    for path, (size, sha256) in expected.items():
        problem = _problem(directory / path, size, sha256) if path in found else "is missing"
        problems += [f"{path} {problem}"] if problem else []
    return sorted(problems)


def resources(directory: Path) -> dict[str, int]:
    """The files of a whole checkpoint and their sizes in bytes."""
    return {path: size for path, (size, _) in _manifest(directory).items()}


def read_metadata(directory: Path) -> dict[str, object]:
    """What was stored with the checkpoint; empty when it cannot be read."""
    try:
        found = json.loads((directory / METADATA_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def steps_completed(directory: Path) -> int:
    """How many batches the checkpoint stands for; 0 when it does not say."""
    steps = read_metadata(directory).get("steps_completed", 0)
    return steps if isinstance(steps, int) else 0


def first_whole(root: Path, uuids: Sequence[str], *, unsealed: bool = False) -> tuple[str, dict[str, str]]:
    """The first undamaged checkpoint, and for each one passed over why.

    Args:
        root: holds them.
        uuids: in the order of preference.
        unsealed: also take one without a manifest, as Determined has written them.

    Raises:
        CheckpointError: all of them are damaged.
    """
    rejected: dict[str, str] = {}
    for name in uuids:
        problems = [] if unsealed and _is_unsealed(root / name) else verify(root / name)
        if not problems:
            return name, rejected
        rejected[name] = "; ".join(problems[:3])
    listing = "".join(f"\n  {name}: {why}" for name, why in rejected.items())
    raise CheckpointError(
        f"none of the checkpoints to resume from is whole:{listing}",
        mend=f"restore one of them under {root} from a copy, or start a new experiment",
    )


def _is_unsealed(directory: Path) -> bool:
    """What is stored here is sealed before it gets its name: without a manifest it is another's."""
    return directory.is_dir() and not (directory / MANIFEST_FILE).exists()


def _lock(draft: Path) -> int:
    """Mark the draft as alive: the lock dies with its process. A disk that refuses it is not swept."""
    handle = os.open(draft, os.O_RDONLY | os.O_DIRECTORY)
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return handle


def _seal(directory: Path) -> dict[str, dict[str, object]]:
    """Sync every file and directory below, and describe the files."""
    files: dict[str, dict[str, object]] = {}
    _replace_links(directory)
    for path in _files(directory):
        size, sha256 = _digest(directory / path, sync=True)
        files[path] = {"size": size, "sha256": sha256}
    for parent, _, _ in os.walk(directory):
        sync_directory(Path(parent))
    return files


def _replace_links(directory: Path) -> None:
    """Put what a link leads to in its place: a checkpoint is whole by itself."""
    for path in [path for path in directory.rglob("*") if path.is_symlink()]:
        if not path.is_file():
            raise CheckpointError(
                f"{path.relative_to(directory)} in the checkpoint is a link to no file",
                mend="let the trial and its callbacks save files, not links",
            )
        draft = path.with_name(f"{path.name}.tmp")
        shutil.copyfile(path, draft)
        draft.replace(path)


def _files(directory: Path) -> list[str]:
    """Paths of the files below, but for the manifest."""
    found = (path.relative_to(directory).as_posix() for path in directory.rglob("*") if not path.is_dir())
    return sorted(path for path in found if path != MANIFEST_FILE)


def _digest(path: Path, *, sync: bool = False) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
        if sync:
            os.fsync(file.fileno())
    return size, digest.hexdigest()


def _manifest(directory: Path) -> dict[str, tuple[int, str]]:
    raw = json.loads((directory / MANIFEST_FILE).read_bytes())["files"]
    return {str(path): (int(entry["size"]), str(entry["sha256"])) for path, entry in raw.items()}


def _problem(path: Path, size: int, sha256: str) -> str:
    try:
        found = path.stat().st_size
        if found != size:
            return f"has {found} bytes instead of {size}"
        return "" if _digest(path)[1] == sha256 else "has other content than was stored"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _write_json(path: Path, value: object) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=2, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
