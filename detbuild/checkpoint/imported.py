"""Takes in a checkpoint from elsewhere, such as one of Determined's, for experiments to start from."""

from __future__ import annotations

import os
import re
import stat
import uuid as uuids
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from detbuild.checkpoint.download import copy_whole
from detbuild.checkpoint.extract import extract
from detbuild.checkpoint.owners import IMPORTED, claim
from detbuild.checkpoint.transfer import copy_file, damage_errors, is_name
from detbuild.errors import ConfigError
from detbuild.store.files import file_errors
from determined import _checkpoints
from determined._untrusted import UntrustedDir, UntrustedError

if TYPE_CHECKING:
    from pathlib import Path

    from detbuild.store.home import Home

_DRAFTS: Final = re.compile(r"\..*")  # all that is hidden in the directory
_NAME_IT: Final = "name the directory that holds the checkpoint, without links"
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
        home.imported.mkdir(mode=0o700, exist_ok=True)  # allowed: in no mount
        _checkpoints.sweep(home.imported, _DRAFTS)
    with ExitStack() as held:
        with file_errors(home.imported):
            room = held.enter_context(_checkpoints.drafted(home.imported, _checkpoints.draft_name("taken")))
        directory = _directory(home, source, room)
        name = uuid or _uuid_of(source, directory)
        if not is_name(name):
            raise ConfigError(f"{name!r} cannot be the name of a checkpoint")
        if (home.imported / name).exists():  # allowed: in no mount
            raise ConfigError(f"there is a checkpoint {name} already", hint="give another name with --uuid")
        _take(directory, home.imported, name)
        claim(
            home, name, IMPORTED
        )  # one that an experiment of this home has announced stays that experiment's
    return name


def _directory(home: Home, source: Path, room: Path) -> Path:
    """Where its files are; an archive is unpacked in `room`."""
    _refuse_links_of_runs(home, source)
    if source.is_dir():  # allowed: named by the user
        return source.resolve()  # allowed: named by the user
    if not source.is_file():  # allowed: named by the user
        raise ConfigError(f"there is no file or directory {source}")
    extract(source, room)
    inside = UntrustedDir(room).scan()
    return room / inside[0].path if len(inside) == 1 and inside[0].is_directory else room


def _refuse_links_of_runs(home: Home, source: Path) -> None:
    """Links are the user's own, but for those below the home: a run may have made them."""
    path = os.path.abspath(source)  # noqa: PTH100  (`resolve` would pass the links)
    for root in {os.path.abspath(home.path), os.path.realpath(home.path)}:  # noqa: PTH100  # allowed: in no mount
        if not path.startswith(f"{root}/"):
            continue
        try:
            mode = UntrustedDir(root).stat(path[len(root) + 1 :]).st_mode
        except FileNotFoundError:
            return  # which is told in the user's words
        except UntrustedError as error:
            raise ConfigError(f"cannot read {source}: {error}", hint=_NAME_IT) from error
        if stat.S_ISLNK(mode):
            raise ConfigError(f"{source} is a symbolic link, which a run may have made", hint=_NAME_IT)


def _uuid_of(source: Path, directory: Path) -> str:
    names = (directory.name, source.name.split(".")[0])
    return next((name for name in names if _UUID.fullmatch(name)), str(uuids.uuid4()))


def _take(directory: Path, imported: Path, name: str) -> None:
    with file_errors(imported), damage_errors(name), _checkpoints.opened(directory) as checkpoint:
        if checkpoint.exists(_checkpoints.MANIFEST_FILE):
            copy_whole(directory, imported / name)
            return
        metadata = _checkpoints.read_metadata(directory)
        files = _files(directory, checkpoint)
        with _checkpoints.store(imported, metadata, name) as (path, _), _checkpoints.opened(path) as draft:
            for file in files:
                copy_file(checkpoint, draft, file)


def _files(directory: Path, checkpoint: UntrustedDir) -> list[str]:
    """Regular files alone: a link would lead to what is no part of it."""
    found = [entry for entry in checkpoint.walk() if not entry.is_directory]
    for entry in found:
        if not entry.is_file:
            raise ConfigError(
                f"{directory / entry.path} is not a regular file: {entry.kind}",
                hint="replace it by a regular file",
            )
    if not found:
        raise ConfigError(f"{directory} holds no files, so it is no checkpoint")
    return [entry.path for entry in found]
