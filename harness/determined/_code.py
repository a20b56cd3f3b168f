"""The copy of the user's code in every checkpoint."""

from __future__ import annotations

import fnmatch
import logging
import os
import shutil
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from determined._home import is_home

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_LOG = logging.getLogger(__name__)
_NO_CODE = ("__pycache__", "*.py[co]", "*$py.class", ".git", ".vscode", ".idea", ".mypy_cache", ".venv")
_LIMIT = 95 << 20  # bytes: Determined's limit for a context; a larger one contains data


def copy_code(context_dir: Path, target: Path, storage: Iterable[Path]) -> None:
    """Copy a context without caches, `storage` and detbuild homes; skip one that is mostly data.

    Args:
        context_dir: the user's files.
        target: of the copy; not created if nothing is copied.
        storage: directories that may lie inside the context and would be copied into themselves.
    """
    apart = {path.resolve() for path in (*storage, target)}
    files = list(_files(context_dir.resolve(), apart))
    size = sum(path.lstat().st_size for path in files)
    if size > _LIMIT:
        _warn_once(str(context_dir), size >> 20)
        return
    for path in files:
        copy = target / path.relative_to(context_dir.resolve())
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy, follow_symlinks=False)


def _files(root: Path, apart: set[Path]) -> Iterator[Path]:
    for parent, names, files in os.walk(root):
        here = Path(parent)
        names[:] = [name for name in names if _is_code(name) and here / name not in apart]
        names[:] = [name for name in names if not is_home(here / name)]
        links = (here / name for name in names if (here / name).is_symlink())
        found = (here / name for name in files if _is_code(name))
        yield from (path for path in (*links, *found) if path.is_symlink() or path.is_file())


def _is_code(name: str) -> bool:
    return not any(fnmatch.fnmatchcase(name, pattern) for pattern in _NO_CODE)


@cache
def _warn_once(directory: str, megabytes: int) -> None:
    _LOG.warning("checkpoints contain no copy of the code: %s is too large (%d MB)", directory, megabytes)
