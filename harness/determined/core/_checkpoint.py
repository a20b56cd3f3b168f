"""`core_context.checkpoint`: stores a script's files as checkpoints, and restores them.

The files of several processes are merged into one checkpoint.
"""

from __future__ import annotations

import enum
import filecmp
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from determined._contract import checkpoints
from determined._contract.errors import CheckpointError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from determined._run.script import RunHandle

_SHOWN = 5  # conflicts in a message


class DownloadMode(enum.Enum):
    """Whether the processes of a host share one download."""

    LocalWorkersShareDownload = "LOCAL_WORKERS_SHARE_DOWNLOAD"
    NoSharedDownload = "NO_SHARED_DOWNLOAD"


class CheckpointContext:
    """Checkpoints are complete and on disk when the methods return; a dead process leaves no partial one."""

    def __init__(self, handle: RunHandle) -> None:
        self._handle, self._distributed = handle, handle.distributed
        self._root = Path(handle.info.checkpoint_dir)

    @contextmanager
    def store_path(
        self, metadata: Mapping[str, object] | None = None, *, shard: bool = False
    ) -> Iterator[tuple[Path, str]]:
        """Yield an empty directory to fill, and the checkpoint's future ID.

        Args:
            metadata: requires `steps_completed`, the batches trained so far.
            shard: all processes call; each fills its own directory, and their files are merged.

        Raises:
            RuntimeError: a rank other than 0 calls without `shard`, or two ranks wrote different files of the
                same name.
            ValueError: `steps_completed` is missing.
        """
        if shard and self._distributed.size > 1:
            with self._sharded(metadata or {}) as (path, uuid):
                yield path, uuid
            return
        chief = self._handle.chief
        if chief is None:
            raise RuntimeError(
                f"rank {self._distributed.rank} stored a checkpoint without shard=True: "
                "call it on rank 0 only, or pass shard=True on all ranks"
            )
        with chief.store_checkpoint(_steps(metadata or {}), metadata or {}) as (path, uuid):
            yield path, uuid

    def upload(
        self,
        ckpt_dir: str | Path | None,
        metadata: Mapping[str, object] | None = None,
        *,
        shard: bool = False,
        selector: Callable[[str], bool] | None = None,
    ) -> str:
        """Store a copy of a directory and return the checkpoint's ID.

        Args:
            ckpt_dir: the directory; with `shard`, None if a process has no files.
            metadata: requires `steps_completed`.
            shard: all processes call.
            selector: called with each path below the directory; returns whether to store it.

        Raises:
            ValueError: `steps_completed` is missing, or the directory does not exist.
        """
        if ckpt_dir is None and not shard:
            raise ValueError("upload got ckpt_dir=None without shard=True")
        if ckpt_dir is not None and not Path(ckpt_dir).is_dir():
            raise ValueError(f"upload got {ckpt_dir}, which is not a directory")
        with self.store_path(metadata, shard=shard) as (path, uuid):
            if ckpt_dir is not None:
                _copy(Path(ckpt_dir), path, selector)
        return uuid

    def download(
        self,
        storage_id: str,
        ckpt_dir: str | Path,
        download_mode: DownloadMode = DownloadMode.LocalWorkersShareDownload,
        *,
        selector: Callable[[str], bool] | None = None,
    ) -> None:
        """Copy a checkpoint's files into a directory.

        Args:
            storage_id: the checkpoint's ID.
            ckpt_dir: created if missing.
            download_mode: whether all processes call, and rank 0 copies for all of them.
            selector: called with each path; returns whether to copy it.

        Raises:
            CheckpointError: the checkpoint is missing or damaged.
        """
        shared = download_mode is DownloadMode.LocalWorkersShareDownload
        if not shared or self._distributed.local_rank == 0:
            _copy(self._whole(storage_id), Path(ckpt_dir), selector)
        if shared:
            self._distributed.broadcast_local(None)

    @contextmanager
    def restore_path(
        self,
        storage_id: str,
        download_mode: DownloadMode = DownloadMode.LocalWorkersShareDownload,
        *,
        selector: Callable[[str], bool] | None = None,
    ) -> Iterator[Path]:
        """Yield a directory with the checkpoint's files, for reading only.

        Args:
            storage_id: the checkpoint's ID.
            download_mode: whether all processes call, and one verifies the files for all of them.
            selector: called with each path; returns whether to include it.

        Raises:
            CheckpointError: the checkpoint is missing or damaged.
        """
        path = self._located(storage_id)
        shared = download_mode is DownloadMode.LocalWorkersShareDownload
        if not shared or self._distributed.local_rank == 0:
            self._whole(storage_id)
        if shared:
            self._distributed.broadcast_local(None)
        if self._handle.chief and path.parent == self._root:
            self._handle.chief.restored(path.name)
        if selector is None:
            yield path
            return
        with tempfile.TemporaryDirectory(prefix="checkpoint-") as selected:
            _copy(path, Path(selected), selector)
            yield Path(selected)

    def get_metadata(self, storage_id: str) -> dict[str, object]:
        """Return the checkpoint's metadata."""
        return checkpoints.read_metadata(self._located(storage_id))

    def delete(self, storage_id: str) -> None:
        """Delete a checkpoint's files."""
        path = self._directory(storage_id)
        if not path.is_dir():
            raise _missing(storage_id, self._root)
        shutil.rmtree(path)

    @contextmanager
    def _sharded(self, metadata: Mapping[str, object]) -> Iterator[tuple[Path, str]]:
        rank, group = self._distributed.rank, self._distributed.group
        merged = merged_metadata(self._distributed.allgather(dict(metadata)))
        with self._handle.run.store_checkpoint(_steps(merged), merged) as (draft, uuid):
            own = directory(draft, rank)
            own.mkdir()
            yield own, uuid
            self._distributed.gather(None)
            trouble = group.broadcast(merge(draft, group.size) if rank == 0 else "")
            if trouble:
                raise RuntimeError(trouble)

    def _whole(self, storage_id: str) -> Path:
        path = self._located(storage_id)
        problems = checkpoints.verify(path)
        if problems:
            raise CheckpointError(
                f"checkpoint {storage_id} is damaged: {'; '.join(problems[:3])}",
                hint=f"use an older one, or restore its files under {self._root} from a backup",
            )
        return path

    def _located(self, storage_id: str | os.PathLike[str]) -> Path:
        """Return the directory of a checkpoint ID, or of a directory, as another method returns it."""
        return checkpoints.located(storage_id, self._root)

    def _directory(self, storage_id: str) -> Path:
        if Path(storage_id).name != storage_id:
            raise ValueError(f"{storage_id!r} is not a valid checkpoint ID")
        return self._root / storage_id


def _missing(storage_id: str, root: Path) -> CheckpointError:
    return CheckpointError(
        f"there is no checkpoint {storage_id}", hint=f"run `detbuild checkpoint list`, or check {root}"
    )


def _steps(metadata: Mapping[str, object]) -> int:
    steps = metadata.get("steps_completed")
    if isinstance(steps, bool) or not isinstance(steps, int):
        raise ValueError(  # noqa: TRY004  (Determined's own type, and most often it is missing)
            "the metadata of a checkpoint require steps_completed, an integer number of batches"
        )
    return steps


def _copy(source: Path, target: Path, selector: Callable[[str], bool] | None) -> None:
    """Copy all files but the manifest; a selected directory does not include its files."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source).as_posix() + ("/" if path.is_dir() else "")
        if name == checkpoints.MANIFEST_FILE or (selector is not None and not selector(name)):
            continue
        copy = target / name
        if path.is_dir():
            copy.mkdir(parents=True, exist_ok=True)
        else:
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def directory(draft: Path, rank: int) -> Path:
    """Return the directory of a rank's files before the merge."""
    return draft / f".rank-{rank}"


def merged_metadata(everyone: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Merge the metadata of all ranks.

    Raises:
        RuntimeError: two ranks have different values for a key.
    """
    merged: dict[str, object] = {}
    owner: dict[str, int] = {}
    for rank, metadata in enumerate(everyone):
        for key, value in metadata.items():
            if key in merged and merged[key] != value:
                raise RuntimeError(
                    f"the checkpoint's metadata differ: {key} is {merged[key]!r} on rank {owner[key]}, "
                    f"but {value!r} on rank {rank}"
                )
            merged.setdefault(key, value)
            owner.setdefault(key, rank)
    return merged


def merge(draft: Path, size: int) -> str:
    """Move all ranks' files into the checkpoint; return an error, or "".

    Identical files of several ranks are merged; files that differ are a conflict.
    """
    owner: dict[str, int] = {}
    conflicts = []
    for rank in range(size):
        shard = directory(draft, rank)
        for path in sorted(path for path in shard.rglob("*") if path.is_dir() or path.is_file()):
            name = path.relative_to(shard).as_posix()
            if not _taken(path, draft / name):
                conflicts.append(f"{name} (ranks {owner.get(name, 0)} and {rank})")
            owner.setdefault(name, rank)
        shutil.rmtree(shard)
    return (
        f"ranks stored different files of the same name: {', '.join(conflicts[:_SHOWN])}" if conflicts else ""
    )


def _taken(path: Path, target: Path) -> bool:
    if path.is_dir():
        if not target.exists():
            target.mkdir()
        return target.is_dir()
    if target.exists():
        return target.is_file() and filecmp.cmp(path, target, shallow=False)
    path.replace(target)
    return True
