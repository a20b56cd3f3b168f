"""Merges the files of several processes into one checkpoint."""

from __future__ import annotations

import filecmp
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_SHOWN = 5  # conflicts in a message


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
