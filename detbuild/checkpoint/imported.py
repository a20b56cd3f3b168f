"""Takes in a checkpoint from elsewhere, such as one of Determined's, for experiments to start from."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import uuid as uuids
from pathlib import Path
from typing import TYPE_CHECKING, Final

from detbuild.checkpoint.download import copy_whole
from detbuild.checkpoint.extract import extract
from detbuild.checkpoint.transfer import is_name
from detbuild.errors import ConfigError
from detbuild.store.files import file_errors
from determined import _checkpoints

if TYPE_CHECKING:
    from detbuild.store.home import Home

_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def import_checkpoint(home: Home, source: Path, uuid: str | None = None) -> str:
    """Copy a directory or a tar file to the home, and return the uuid it can be named by.

    Args:
        home: Its `imported/<uuid>` takes the files.
        source: With a manifest, it has to be whole; without one, as Determined writes them, it gets one.
        uuid: By default that of its directory, if that is one, and otherwise a new one.

    Raises:
        ConfigError: It is no checkpoint, or one of that name is there.
        EngineError: It is damaged, or cannot be copied.
    """
    with file_errors(home.imported):
        home.imported.mkdir(mode=0o700, exist_ok=True)
        room = Path(tempfile.mkdtemp(prefix=".taken-", dir=home.imported))
    try:
        directory = _directory(source, room)
        name = uuid or _uuid_of(source, directory)
        if not is_name(name):
            raise ConfigError(f"{name!r} cannot be the name of a checkpoint")
        if (home.imported / name).exists():
            raise ConfigError(f"there is a checkpoint {name} already", mend="give another name with --uuid")
        _take(directory, home.imported, name)
    finally:
        shutil.rmtree(room, ignore_errors=True)
    return name


def _directory(source: Path, room: Path) -> Path:
    """Where its files are; an archive is unpacked in `room`."""
    if source.is_dir():
        return source
    if not source.is_file():
        raise ConfigError(f"there is no file or directory {source}")
    extract(source, room)
    inside = list(room.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else room


def _uuid_of(source: Path, directory: Path) -> str:
    names = (directory.name, source.name.split(".")[0])
    return next((name for name in names if _UUID.fullmatch(name)), str(uuids.uuid4()))


def _take(directory: Path, imported: Path, name: str) -> None:
    if (directory / _checkpoints.MANIFEST_FILE).is_file():
        copy_whole(directory, imported / name)
        return
    files = _files(directory)
    if not files:
        raise ConfigError(f"{directory} holds no files, so it is no checkpoint")
    metadata = _checkpoints.read_metadata(directory)
    with _checkpoints.store(imported, metadata) as (draft, given):
        for path in files:
            (draft / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(directory / path, draft / path, follow_symlinks=False)
    (imported / given).rename(imported / name)


def _files(directory: Path) -> list[Path]:
    """Regular files alone: a link would lead to what is no part of it."""
    found = []
    for parent, _, names in os.walk(directory):
        for name in names:
            path = Path(parent, name)
            if path.is_symlink() or not path.is_file():
                raise ConfigError(f"{path} is no regular file", mend="put what it stands for in its place")
            found.append(path.relative_to(directory))
    return found
