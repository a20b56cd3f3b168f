"""The home directory of one user's experiments: its id, their numbers, deletions in progress, the archive."""

from __future__ import annotations

import fcntl
import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeVar

from detbuild.errors import ConfigError, EngineError
from detbuild.store.annotations import change_attributes
from detbuild.store.experiment_dir import ExperimentFolder, changed_at
from detbuild.store.files import close_to_others, file_errors, locked, private_directory, write_synced
from determined._contract.untrusted import UntrustedDir, UntrustedError, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from detbuild.events import Emit, Warned

T = TypeVar("T")
_RETIRED = ".retired"
_ID = "home.json"
# Entries that detbuild creates in a home besides experiments and cache.
_MADE = (
    _ID,
    "index.sqlite",
    "index.sqlite-wal",
    "index.sqlite-shm",
    "imported",
    "log",
    "models",
    "owners",
    "scripts",
    "templates",
)
_NUMBER = re.compile(r"[1-9][0-9]{0,17}").fullmatch
_INTENT: Final = "deleting"
_HIDDEN: Final = ".deleted-"


@dataclass(frozen=True, slots=True)
class Home:
    """`$DETBUILD_HOME`."""

    path: Path
    id: str  # 8 hex digits, part of each container name

    @classmethod
    def open(cls, path: Path) -> Home:
        """Open a home; create the directory and its id if needed, and remove the access of other users.

        Raises:
            ConfigError: It belongs to another user.
            EngineError: It cannot be written.
        """
        with file_errors(path):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)  # allowed: the home itself
            _refuse_foreign(path)
            for name in ("experiments", "cache"):
                private_directory(path / name)
            for name in _MADE:
                close_to_others(path / name)
            return cls(path, _home_id(path / _ID))

    @property
    def experiments(self) -> Path:
        return self.path / "experiments"

    @property
    def cache(self) -> Path:
        """Files that may be deleted at any time: hashes of context files, records of finished runs."""
        return self.path / "cache"

    @property
    def imported(self) -> Path:
        """Imported checkpoints, by UUID."""
        return self.path / "imported"

    @property
    def owners(self) -> Path:
        """Owners of checkpoints: links by UUID to the number of an experiment."""
        return self.path / "owners"

    @property
    def index(self) -> Path:
        return self.path / "index.sqlite"

    @property
    def digests(self) -> Path:
        """The cache of records of finished runs."""
        return self.cache / "runs.sqlite"

    @property
    def directories(self) -> tuple[Path, ...]:
        """Directories for files that do not belong to an experiment."""
        return (self.path, self.experiments, self.path / "models", self.cache, self.cache / "dockerfiles")

    def folder(self, experiment_id: int) -> ExperimentFolder:
        """Return the folder of a number, even if there is no experiment in it."""
        return ExperimentFolder(self.experiments / str(experiment_id))

    def experiment(self, experiment_id: int) -> ExperimentFolder:
        """Return the folder of an experiment; raise ConfigError if it does not exist."""
        folder = self.folder(experiment_id)
        if not folder.exists:
            raise ConfigError(f"there is no experiment {experiment_id}", hint="see `detbuild list`")
        return folder

    def ids(self) -> tuple[int, ...]:
        """Return all assigned numbers, ascending, including unfinished submissions."""
        with file_errors(self.experiments), os.scandir(self.experiments) as entries:  # allowed: in no mount
            return tuple(
                sorted(int(entry.name) for entry in entries if _NUMBER(entry.name) and _is_folder(entry))
            )

    def each(
        self, read: Callable[[ExperimentFolder], T], emit: Emit, *, oldest_first: bool = False
    ) -> Iterator[T]:
        """Yield `read` of each experiment, newest first, without unfinished submissions and damaged ones.

        Args:
            read: Reads one experiment.
            emit: Receives a warning for each damaged experiment, and for other files with such a name.
            oldest_first: Reverses the order.
        """
        for warning in self._strays():
            emit(warning)
        for number in self.ids() if oldest_first else reversed(self.ids()):
            folder = self.folder(number)
            if not folder.exists:
                continue
            try:
                found = read(folder)
            except (ConfigError, EngineError, OSError) as error:
                if not folder.exists:
                    continue  # deleted meanwhile
                if isinstance(error, ConfigError):
                    raise
                emit(damaged(number, error))
            else:
                yield found

    def _strays(self) -> Iterator[Warned]:
        """Warn of entries that are named like an experiment, but are not a folder."""
        tree = UntrustedDir(self.experiments)
        with file_errors(self.experiments), os.scandir(self.experiments) as entries:  # allowed: in no mount
            names = [entry.name for entry in entries if _NUMBER(entry.name) and not _is_folder(entry)]
        if not names:
            return
        from detbuild.events import Warned

        for name in sorted(names, key=int):
            with suppress(UntrustedError):  # it is gone
                found = kind_of(tree.stat(name).st_mode)
                yield Warned(
                    f"{self.experiments / name} is not the folder of an experiment: it is {found}",
                    "move it aside",
                )

    def new_experiment(self) -> ExperimentFolder:
        """Assign a number: `mkdir` is atomic, and numbers of deleted experiments are never reused."""
        self.require_locks()
        number = (self.ids() or (0,))[-1]
        number = max(number, self.retired())  # read second: a number is retired before its folder is removed
        while True:
            number += 1
            folder = self.folder(number)
            with file_errors(folder.path):
                try:
                    folder.path.mkdir(mode=0o700)  # allowed: in no mount
                except FileExistsError:
                    continue
            return folder

    def require_locks(self) -> None:
        """Raise EngineError if the file system does not support locks, which exclude a second controller."""
        file = self.path / _ID
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)  # allowed: in no mount
        try:
            locked(descriptor, file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        finally:
            os.close(descriptor)

    def retired(self) -> int:
        """Return the highest number of a deleted experiment; 0 if none was deleted."""
        try:
            return int(UntrustedDir(self.experiments).read(_RETIRED, 100))
        except (FileNotFoundError, ValueError):
            return 0

    def retire(self, number: int) -> None:
        """Prevent a number from being assigned again; the caller must hold a lock."""
        if number > self.retired():
            write_synced(self.experiments / _RETIRED, b"%d\n" % number)


def damaged(number: int, error: Exception) -> Warned:
    """Build the warning that an experiment is skipped in a listing."""
    from detbuild.events import Warned

    return Warned(f"experiment {number} is damaged and skipped: {error}", getattr(error, "hint", ""))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a directory, or a link to one."""
    try:
        return entry.is_dir()  # allowed: opens nothing there
    except OSError:
        return False  # a loop of links


def _refuse_foreign(path: Path) -> None:
    owner = path.stat().st_uid  # allowed: the home itself
    if owner != os.geteuid():
        raise ConfigError(
            f"{path} belongs to another user (uid {owner}), and you are uid {os.geteuid()}",
            hint="set DETBUILD_HOME to a directory of your own",
        )


def _home_id(file: Path) -> str:
    if not file.exists():  # allowed: in no mount
        temporary = file.with_name(f".home.{os.getpid()}.tmp")
        write_synced(temporary, json.dumps({"id": os.urandom(4).hex()}).encode() + b"\n")
        try:
            # Unlike a rename, this fails if another process created it first.
            os.link(temporary, file)  # allowed: in no mount
        except FileExistsError:
            pass
        finally:
            temporary.unlink()  # allowed: in no mount
    try:
        return str(json.loads(file.read_bytes())["id"])  # allowed: in no mount
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(
            f"{file} is damaged",
            hint='write {"id": "..."} with the 8 hex digits after `detbuild-` in the names of its containers',
        ) from error


def mark_deleting(folder: ExperimentFolder) -> None:
    """Mark the experiment as being deleted, synced to disk; the deletion cannot be undone after this."""
    write_synced(folder.path / _INTENT, b"")


def is_deleting(folder: ExperimentFolder) -> bool:
    """Whether the experiment is being deleted, so that no controller may be started for it."""
    return changed_at(folder.path / _INTENT) != 0


def hidden_name(home: Home, folder: ExperimentFolder) -> Path:
    """Return the name of the folder after the experiment was deleted from listings."""
    return home.experiments / f"{_HIDDEN}{folder.id}"


def unfinished_deletions(home: Home) -> tuple[tuple[ExperimentFolder, ...], tuple[Path, ...]]:
    """Return the marked experiments, and the hidden folders that only have to be removed."""
    folders = (home.folder(number) for number in home.ids())
    hidden = home.experiments.glob(f"{_HIDDEN}*")  # allowed: names that the host chose
    return tuple(filter(is_deleting, folders)), tuple(hidden)


def set_archived(folders: Sequence[ExperimentFolder], *, archived: bool) -> None:
    """Archive or unarchive all of the experiments, or none.

    Raises:
        ConfigError: One has not ended, so it would use slots while it is hidden.
    """
    from detbuild.store.state import fold

    for folder in folders if archived else ():
        state = fold(folder.header(), folder.journal())
        if not state.over:
            raise ConfigError(
                f"experiment {folder.id} has not ended: it is {state.state.label}",
                hint=f"run `detbuild cancel {folder.id}` and `detbuild wait {folder.id}`, then archive it",
            )
    for folder in folders:
        change_attributes(folder.path, lambda attributes: replace(attributes, archived=archived))
