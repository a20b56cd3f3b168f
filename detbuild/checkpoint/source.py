"""Brings checkpoints into a home: stages the source of a new experiment, imports, and registers versions.

An archive is untrusted: only regular files and directories are extracted, only inside one new directory. Each
directory is opened relative to its parent, never by its full path, and no link is created or followed, as the
filter of `tarfile` was bypassed several times (CVE-2024-12718, CVE-2025-4330, CVE-2025-4517).
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import stat
import tarfile
import time
import uuid as uuids
import zlib
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, cast

from detbuild.checkpoint.download import copy_whole, download, raise_if_unusable
from detbuild.checkpoint.find import checkpoints_of, find_checkpoint
from detbuild.checkpoint.owners import IMPORTED, claim
from detbuild.checkpoint.transfer import copy_file, damage_errors, is_name
from detbuild.config.storage import SharedFs
from detbuild.errors import ConfigError, EngineError
from detbuild.store.experiment_dir import checkpoint_storage
from detbuild.store.files import file_errors
from detbuild.store.registry import Version, read_model, register
from determined._contract import checkpoints
from determined._contract.checkpoints import opened
from determined._contract.untrusted import UntrustedDir, UntrustedError, reason_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from detbuild.checkpoint.find import Found
    from detbuild.config.experiment import ExperimentConfig
    from detbuild.store.experiment_dir import ExperimentFolder
    from detbuild.store.home import Home

_MAGIC: Final = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\x00", lzma.open))
_BLOCK: Final = 1 << 20
_MOST_EXPANDED: Final = 100  # largest compression ratio: weights hardly compress
_ALWAYS: Final = 1 << 28  # bytes that any archive may extract to
_MOST_ENTRIES: Final = 100_000
_SPARE: Final = 20  # one part in 20 of the free space is left free
_LONGEST_READ: Final = 4 << 20  # largest read in bytes; a header may claim any length
_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BROKEN: Final = (tarfile.TarError, EOFError, OSError, ValueError, zlib.error, lzma.LZMAError)
_DRAFTS: Final = re.compile(r"\..*")  # all hidden entries of the directory
_NAME_IT: Final = "use the path of the checkpoint directory without links"
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def sources_of(config: ExperimentConfig, home: Home) -> tuple[Found | Path, ...]:
    """Resolve `searcher.source_trial_id` or `source_checkpoint_uuid` to candidates, best first.

    Empty if the config has no source, or if the run finds it in the shared directory.

    Raises:
        ConfigError: The trial or checkpoint does not exist.
        EngineError: The checkpoint in the shared directory is not a directory.
    """
    searcher = config.searcher
    if searcher.source_trial_id is not None:
        return _of_trial(str(searcher.source_trial_id), home)
    uuid, storage = searcher.source_checkpoint_uuid, config.checkpoint_storage
    if uuid is None:
        return ()
    if isinstance(storage, SharedFs) and UntrustedDir(storage.directory).exists(uuid):
        with damage_errors(uuid), opened(Path(storage.directory, uuid)):
            return ()  # the run reads it there
    if (home.imported / uuid).is_dir():  # allowed: in no mount
        return (home.imported / uuid,)
    found = find_checkpoint(home, uuid)
    if found.checkpoint.uuid != uuid:
        raise ConfigError(
            f"searcher.source_checkpoint_uuid: {uuid} is not a full checkpoint UUID",
            hint=f"use {found.checkpoint.uuid}",
        )
    return (found,)


def stage_source_checkpoint(
    sources: Sequence[Found | Path], config: ExperimentConfig, folder: ExperimentFolder
) -> ExperimentConfig:
    """Copy the source checkpoint into the new experiment, which makes it independent of the old one.

    Returns:
        The config with the UUID of the staged checkpoint.

    Raises:
        EngineError: All candidates are damaged, or the copy failed.
        ConfigError: The experiment's checkpoints are not on this host.
    """
    storage = checkpoint_storage(config, folder).on_host
    if storage is None:
        raise ConfigError(
            "searcher.source_checkpoint_uuid: the checkpoints of this experiment stay inside its container",
            hint="mount a directory of the host at checkpoint_storage.container_path with bind_mounts",
        )
    uuid = _bring_first(sources, storage)
    named = {"source_trial_id": None, "source_checkpoint_uuid": uuid}
    return config.model_copy(update={"searcher": config.searcher.model_copy(update=named)})


def _of_trial(reference: str, home: Home) -> tuple[Found, ...]:
    """List the checkpoints of a trial: `3/2` is trial 2 of experiment 3, `3` its first trial."""
    experiment, _, trial = reference.partition("/")
    number = int(trial or 1)
    found = tuple(
        one
        for one in checkpoints_of(home.experiment(int(experiment)))
        if one.trial_id == number and one.state in {"COMPLETED", "ERROR"} and not one.checkpoint.foreign
    )
    if not found:
        raise ConfigError(
            f"searcher.source_trial_id: trial {experiment}/{number} has no checkpoint",
            hint=f"see `detbuild checkpoint list {experiment}`",
        )
    return found


def _bring_first(sources: Sequence[Found | Path], storage: Path) -> str:
    """Stage the first undamaged checkpoint of `sources` and return its UUID."""
    problems = []
    for source in sources:
        uuid = source.name if isinstance(source, Path) else source.checkpoint.uuid
        try:
            if not UntrustedDir(storage).exists(uuid):
                _copy(source, storage / uuid)
            elif not isinstance(source, Path):
                raise_if_unusable(source)
        except EngineError as error:
            problems.append(error)
        else:
            return uuid
    if len(problems) == 1:
        raise problems[0]
    listing = "".join(f"\n  {error}" for error in problems)
    raise EngineError(
        f"all checkpoints to start from are damaged:{listing}",
        hint="restore one of them, or remove the source from the config",
    )


def _copy(source: Found | Path, target: Path) -> None:
    if isinstance(source, Path):
        copy_whole(source, target)
    else:
        download(source, target)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    entries: int = _MOST_ENTRIES
    size: int = 1 << 40  # total bytes of all files
    depth: int = 64  # nested directories
    why: str = ""  # the reason for the size limit, as a suffix of the message

    @classmethod
    def of(cls, archive: Path, target: Path) -> Limits:
        """Derive the limits from the free space of `target` and the size of the archive."""
        disk = os.statvfs(target)
        free = disk.f_bavail * disk.f_frsize
        room = free - free // _SPARE
        expanded = archive.stat().st_size * _MOST_EXPANDED + _ALWAYS  # allowed: named by the user
        entries = min(_MOST_ENTRIES, disk.f_favail) if disk.f_files else _MOST_ENTRIES
        if room <= expanded:
            return cls(entries=entries, size=room, why=", the free space on the disk")
        return cls(entries=entries, size=expanded, why=f", {_MOST_EXPANDED} times the size of the archive")


def extract(archive: Path, target: Path, limits: Limits | None = None) -> None:
    """Extract a tar file, plain or compressed with gzip, bzip2 or xz, to the empty directory `target`.

    By default it may expand to a hundred times its size, and to the free space of the disk. Files get mode
    0644 and directories 0755, whatever the archive says. On an error, the files extracted so far are left in
    `target` for the caller to remove.

    Raises:
        ConfigError: It is not a valid archive, or an entry is not a regular file or directory, lies outside
            of `target`, is duplicated, or exceeds the limits.
    """
    with (
        _broken_archive(archive),
        _opened(archive) as stream,
        tarfile.open(fileobj=stream, mode="r:") as tar,  # allowed: an open stream
    ):
        bounds = limits or Limits.of(archive, target)
        root = os.open(target, _DIRECTORY)  # allowed: a new directory of the host's own
        try:
            left = bounds.size
            for number, member in enumerate(tar, start=1):
                if number > bounds.entries:
                    raise _refused(archive, member.name, f"is more than {bounds.entries} entries")
                left -= member.size if member.isreg() else 0
                if left < 0:
                    raise _refused(
                        archive, member.name, f"makes it larger than {bounds.size} bytes{bounds.why}"
                    )
                _unpack(tar, member, root, _parts(archive, member, bounds))
        finally:
            os.close(root)


def _parts(archive: Path, member: tarfile.TarInfo, bounds: Limits) -> list[str]:
    """Return the path components of the member."""
    name = member.name
    if not (member.isdir() or member.type in {tarfile.REGTYPE, tarfile.AREGTYPE}):
        raise _refused(archive, name, "is neither a regular file nor a directory")
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise _refused(archive, name, "leads out of the archive")
    if len(parts) > bounds.depth:
        raise _refused(archive, name, f"lies more than {bounds.depth} directories deep")
    if not parts and not member.isdir():
        raise _refused(archive, name, "has no name")
    return parts


def _unpack(tar: tarfile.TarFile, member: tarfile.TarInfo, root: int, parts: list[str]) -> None:
    *parents, name = parts or [""]
    if member.isdir():
        parents, name = parts, ""
    directory = os.dup(root)
    try:
        for parent in parents:
            above, directory = directory, _enter(directory, parent)
            os.close(above)
        if name:
            file = os.open(name, _FILE, 0o644, dir_fd=directory)  # allowed: new, without links
            _write(tar, member, file)
    finally:
        os.close(directory)


def _enter(directory: int, name: str) -> int:
    with suppress(FileExistsError):  # anything but a directory fails to open below
        os.mkdir(name, 0o755, dir_fd=directory)  # allowed: relative, without links
    return os.open(name, _DIRECTORY, dir_fd=directory)  # allowed: relative, without links


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, descriptor: int) -> None:
    with os.fdopen(descriptor, "wb") as file:
        body = tar.extractfile(member)
        assert body is not None
        left = member.size
        while left:
            block = body.read(min(_BLOCK, left))
            if not block:
                raise EOFError(f"{member.name} ends early")
            file.write(block)
            left -= len(block)
        file.flush()
        os.fsync(file.fileno())


class _Bounded:
    """A stream that rejects the huge reads of a hostile header, which would fill the memory."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LONGEST_READ:
            raise ValueError("a header is too long")
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


@contextmanager
def _opened(archive: Path) -> Iterator[IO[bytes]]:
    with archive.open("rb") as raw:  # allowed: named by the user
        start = raw.read(8)
        raw.seek(0)
        opener = next((opener for magic, opener in _MAGIC if start.startswith(magic)), None)
        stream = cast("IO[bytes]", opener(raw, "rb")) if opener else raw
        with stream:
            yield cast("IO[bytes]", _Bounded(stream))


@contextmanager
def _broken_archive(archive: Path) -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        reason = reason_of(error) if isinstance(error, OSError) else error
        raise ConfigError(
            f"cannot unpack {archive}: {reason}", hint="use a complete tar file, or a directory"
        ) from error


def _refused(archive: Path, name: str, why: str) -> ConfigError:
    return ConfigError(
        f"{archive} was rejected: {name!r} {why}",
        hint="unpack it in a sandbox, check it, and use the directory",
    )


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
        checkpoints.sweep(home.imported, _DRAFTS)
    with ExitStack() as held:
        with file_errors(home.imported):
            room = held.enter_context(checkpoints.drafted(home.imported, checkpoints.draft_name("taken")))
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
    with file_errors(imported), damage_errors(name), checkpoints.opened(directory) as checkpoint:
        if checkpoint.exists(checkpoints.MANIFEST_FILE):
            copy_whole(directory, imported / name)
            return
        metadata = checkpoints.read_metadata(directory)
        files = _files(directory, checkpoint)
        with checkpoints.store(imported, metadata, name) as (path, _), checkpoints.opened(path) as draft:
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


def register_checkpoint(home: Home, model: str, uuid: str, *, name: str = "", comment: str = "") -> Version:
    """Add a checkpoint to a model, which protects it from garbage collection.

    Raises:
        ConfigError: The model or checkpoint does not exist, or its files were deleted.
    """
    read_model(home, model)
    found = find_checkpoint(home, uuid)
    if found.state != "COMPLETED":
        raise ConfigError(
            f"checkpoint {found.checkpoint.uuid} is {found.state}: there is nothing to register",
            hint=f"see `detbuild checkpoint list {found.experiment_id}`",
        )
    version = Version(
        version=0, checkpoint=found.checkpoint.uuid, created=time.time(), name=name, comment=comment
    )
    return register(home, model, version)
