"""The home of one user's experiments: numbers for new ones, and an id that tells homes apart."""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from detbuild.errors import ConfigError, EngineError
from detbuild.events import Warned
from detbuild.store.files import (
    close_to_others,
    file_errors,
    locked,
    private_directory,
    write_synced,
)
from detbuild.store.folder import ExperimentFolder
from determined._untrusted import UntrustedDir, UntrustedError, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from detbuild.events import Emit

T = TypeVar("T")
_RETIRED = ".retired"
_ID = "home.json"
# What detbuild makes in a home besides experiments and cache; nothing below these is looked at.
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


@dataclass(frozen=True, slots=True)
class Home:
    """`$DETBUILD_HOME`."""

    path: Path
    id: str  # 8 hex digits, part of every container's name

    @classmethod
    def open(cls, path: Path) -> Home:
        """Make the directory when it is not there; give it an id when it has none.

        What detbuild made in it is closed to other users, whatever modes it had before.

        Raises:
            ConfigError: It belongs to another user.
            EngineError: It cannot be written.
        """
        with file_errors(path):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
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
        """What may be deleted at any time: hashes of context files, digests of runs."""
        return self.path / "cache"

    @property
    def imported(self) -> Path:
        """Checkpoints that came from elsewhere, each under its uuid."""
        return self.path / "imported"

    @property
    def owners(self) -> Path:
        """Which experiment each checkpoint belongs to: links by uuid, to its number."""
        return self.path / "owners"

    @property
    def index(self) -> Path:
        return self.path / "index.sqlite"

    @property
    def digests(self) -> Path:
        """Of the records of finished runs."""
        return self.cache / "runs.sqlite"

    @property
    def directories(self) -> tuple[Path, ...]:
        """Those in which files are written that belong to no experiment."""
        return (self.path, self.experiments, self.path / "models", self.cache, self.cache / "dockerfiles")

    def folder(self, experiment_id: int) -> ExperimentFolder:
        """The folder of a number, whether or not there is an experiment in it."""
        return ExperimentFolder(self.experiments / str(experiment_id))

    def experiment(self, experiment_id: int) -> ExperimentFolder:
        """Raise ConfigError when there is no such experiment."""
        folder = self.folder(experiment_id)
        if not folder.exists:
            raise ConfigError(f"there is no experiment {experiment_id}", hint="see `detbuild list`")
        return folder

    def ids(self) -> tuple[int, ...]:
        """All numbers given out, ascending; some may belong to submissions that never finished."""
        with file_errors(self.experiments), os.scandir(self.experiments) as entries:
            return tuple(
                sorted(int(entry.name) for entry in entries if _NUMBER(entry.name) and _is_folder(entry))
            )

    def each(
        self, read: Callable[[ExperimentFolder], T], emit: Emit, *, oldest_first: bool = False
    ) -> Iterator[T]:
        """Yield what is read of each experiment, the newest first; a damaged one is left out, and said.

        Submissions that never finished are skipped.

        Args:
            read: What is to be read of an experiment.
            emit: Told of each damaged experiment, and of what only has the name of one, with the reason.
            oldest_first: The other way around.
        """
        for warning in self._strays():
            emit(warning)
        for number in self.ids() if oldest_first else reversed(self.ids()):
            folder = self.folder(number)
            if not folder.exists:
                continue
            try:
                found = read(folder)
            except (EngineError, OSError) as error:
                emit(damaged(number, error))
            else:
                yield found

    def _strays(self) -> Iterator[Warned]:
        """Whatever is named like an experiment and is not the folder of one."""
        tree = UntrustedDir(self.experiments)
        with file_errors(self.experiments), os.scandir(self.experiments) as entries:
            names = [entry.name for entry in entries if _NUMBER(entry.name) and not _is_folder(entry)]
        for name in sorted(names, key=int):
            with suppress(UntrustedError):  # it is gone
                found = kind_of(tree.stat(name).st_mode)
                yield Warned(
                    f"{self.experiments / name} is not the folder of an experiment: it is {found}",
                    "move it away",
                )

    def new_experiment(self) -> ExperimentFolder:
        """Take a number. `mkdir` gives it to one process only; numbers of deleted ones never come back."""
        self.require_locks()
        number = (self.ids() or (0,))[-1]
        number = max(number, self.retired())  # read second: a folder is removed after its number was retired
        while True:
            number += 1
            folder = self.folder(number)
            with file_errors(folder.path):
                try:
                    folder.path.mkdir(mode=0o700)
                except FileExistsError:
                    continue
            return folder

    def require_locks(self) -> None:
        """Raise EngineError on a file system where nothing would keep two controllers apart."""
        file = self.path / _ID
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            locked(descriptor, file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        finally:
            os.close(descriptor)

    def retired(self) -> int:
        """The highest number of an experiment that was deleted; 0 when none was."""
        try:
            return int(UntrustedDir(self.experiments).read(_RETIRED, 100))
        except (FileNotFoundError, ValueError):
            return 0

    def retire(self, number: int) -> None:
        """Keep a number from being given out again. The caller sees to it that nobody else does this now."""
        if number > self.retired():
            write_synced(self.experiments / _RETIRED, b"%d\n" % number)


def damaged(number: int, error: Exception) -> Warned:
    """The warning that an experiment is left out of a listing."""
    return Warned(f"experiment {number} is damaged and left out: {error}", getattr(error, "hint", ""))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a directory, on this disk or by a link on another one."""
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link that leads around in a circle


def _refuse_foreign(path: Path) -> None:
    owner = path.stat().st_uid
    if owner != os.geteuid():
        raise ConfigError(
            f"{path} belongs to another user (uid {owner}), and you are uid {os.geteuid()}",
            hint="set DETBUILD_HOME to a directory of your own",
        )


def _home_id(file: Path) -> str:
    if not file.exists():
        temporary = file.with_name(f".home.{os.getpid()}.tmp")
        write_synced(temporary, json.dumps({"id": secrets.token_hex(4)}).encode() + b"\n")
        try:
            os.link(temporary, file)  # unlike a rename, this fails when another process was quicker
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    try:
        return str(json.loads(file.read_bytes())["id"])
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(
            f"{file} is damaged",
            hint='write {"id": "..."} with the 8 hex digits after `detbuild-` in the names of its containers',
        ) from error
