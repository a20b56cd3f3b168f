"""Imports a checkpoint from elsewhere, e.g. one of Determined, for experiments to start from."""

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

_DRAFTS: Final = re.compile(r"\..*")  # all hidden entries of the directory
_NAME_IT: Final = "use the path of the checkpoint directory without links"
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def import_checkpoint(home: Home, source: Path, uuid: str | None = None) -> str:
    """Import a directory or a tar file as `imported/<uuid>` of the home, and return the UUID.

    Args:
        source: Verified if it has a manifest; otherwise, as for Determined's, a manifest is created.
        uuid: Defaults to the name of the directory if that is a UUID, otherwise to a new one.

    Raises:
        ConfigError: It is not a checkpoint, or the UUID already exists.
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
            raise ConfigError(f"not a valid checkpoint name: {name!r}")
        if (home.imported / name).exists():  # allowed: in no mount
            raise ConfigError(f"checkpoint {name} already exists", hint="choose another UUID with --uuid")
        _take(directory, home.imported, name)
        claim(home, name, IMPORTED)  # no effect if an experiment of this home owns it
    return name


def _directory(home: Home, source: Path, room: Path) -> Path:
    """Return the directory of its files; an archive is extracted to `room`."""
    _refuse_links_of_runs(home, source)
    if source.is_dir():  # allowed: named by the user
        return source.resolve()  # allowed: named by the user
    if not source.is_file():  # allowed: named by the user
        raise ConfigError(f"there is no file or directory {source}")
    extract(source, room)
    inside = UntrustedDir(room).scan()
    return room / inside[0].path if len(inside) == 1 and inside[0].is_directory else room


def _refuse_links_of_runs(home: Home, source: Path) -> None:
    """Raise ConfigError for a link below the home, since a run may have created it."""
    path = os.path.abspath(source)  # noqa: PTH100  (`resolve` would pass the links)
    for root in {os.path.abspath(home.path), os.path.realpath(home.path)}:  # noqa: PTH100  # allowed: in no mount
        if not path.startswith(f"{root}/"):
            continue
        try:
            mode = UntrustedDir(root).stat(path[len(root) + 1 :]).st_mode
        except FileNotFoundError:
            return  # the caller reports it
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
    """List the files; raise ConfigError for anything but regular files, e.g. a link to another place."""
    found = [entry for entry in checkpoint.walk() if not entry.is_directory]
    for entry in found:
        if not entry.is_file:
            raise ConfigError(
                f"{directory / entry.path} is not a regular file: {entry.kind}",
                hint="replace it with a regular file",
            )
    if not found:
        raise ConfigError(f"{directory} has no files, so it is not a checkpoint")
    return [entry.path for entry in found]
