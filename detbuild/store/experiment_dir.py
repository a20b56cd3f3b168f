"""The folder of one experiment: its files, its config, and its checkpoint directory."""

from __future__ import annotations

import json
import math
import os
import posixpath
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from detbuild.codec import as_map, from_json
from detbuild.errors import ConfigError, EngineError
from detbuild.store.annotations import read_attributes
from detbuild.store.files import (
    LARGEST_DOCUMENT,
    file_errors,
    private_directory,
    read_document,
    write_all_synced,
)
from determined._contract.run_info import EVENTS_FILE, STDERR_FILE, STDOUT_FILE, RunInfo
from determined._contract.untrusted import UntrustedDir

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from detbuild.config.environment import BindMount
    from detbuild.config.experiment import ExperimentConfig
    from detbuild.engine.protocol import Mount
    from detbuild.store import journal
    from detbuild.store.journal import Inbox, Verb
    from determined._contract.records import Validation

_HEADER_FILE = "experiment.json"
OUTPUT_FILES = {"stdout": STDOUT_FILE, "stderr": STDERR_FILE}
WORK_DIR: Final = "/run/determined/workdir"
_OWN_DIR: Final = "/run/detbuild/checkpoints"
_SHARED_DIR: Final = "/determined_shared_fs"  # the same as in Determined: user code may rely on it
# Defaults of fields that a local experiment may lack; `max_length` has none, since its absence has a meaning.
_ABSENT: Final[Mapping[str, object]] = {"entrypoint": None, "searcher": {"name": "single", "metric": None}}


@dataclass(frozen=True, slots=True)
class Goal:
    """The searcher's metric and its direction."""

    metric: str = ""
    smaller_is_better: bool = True

    def value(self, validation: Validation) -> float | None:
        """Return the metric of a validation; None if it is absent or not a number."""
        found = validation.metrics.get(self.metric)
        if isinstance(found, bool) or not isinstance(found, (int, float)):
            return None
        try:
            value = float(found)
        except OverflowError:  # an integer beyond what a float holds
            return None
        return None if math.isnan(value) else value

    def cost(self, value: float) -> float:
        """Return what ranks a value of the metric: the lowest is the best."""
        return value if self.smaller_is_better else -value

    def best(self, validations: Sequence[Validation]) -> Validation | None:
        """Return the best validation, the earliest of equal ones."""
        ranked = [
            (self.cost(value), i) for i, v in enumerate(validations) if (value := self.value(v)) is not None
        ]
        return validations[min(ranked)[1]] if ranked else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """The submission: `experiment.json`, written last, so a folder without it is not an experiment."""

    id: int
    name: str
    context_name: str
    created: float  # seconds since the epoch
    image: str = ""  # id; "" for a local run
    tag: str = ""
    engine: str = ""  # id of the engine that runs the experiment's containers; "" if unknown
    engine_at: str = ""  # its address, for messages
    context_dir: str = ""
    labels: tuple[str, ...] = ()
    metric: str = ""  # the searcher's
    smaller_is_better: bool = True
    user: str = ""  # uid:gid of the caller
    host: str = ""
    version: str = ""  # of detbuild
    test_mode: bool = False
    local: bool = False
    local_hooks: bool = False  # run startup hooks on this host, by request
    network: str = "bridge"  # Docker network of the containers
    startup_hook: str = ""  # script of the host that runs in the container before the entrypoint
    engine_memory: int = 0  # memory of the engine's host at submission, bytes; 0 if unknown
    engine_cpus: int = 0
    runtime: str = "docker"  # its name in the home's config.yaml

    @property
    def goal(self) -> Goal:
        return Goal(self.metric, self.smaller_is_better)


def changed_at(file: Path) -> int:
    """Return the modification time in nanoseconds since the epoch; 0 if missing, 1 if inaccessible."""
    try:
        return os.lstat(file).st_mtime_ns or 1  # allowed: many; only a time is read, of a link its own
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError:
        return 1  # reading it reports why


@dataclass(frozen=True, slots=True)
class RunFolder:
    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def events(self) -> Path:
        return self.path / EVENTS_FILE

    @property
    def files(self) -> UntrustedDir:
        """Its files, which are untrusted: the run may have written any of them."""
        return UntrustedDir(self.path.parent.parent).enter(f"{self.path.parent.name}/{self.name}")

    @property
    def exists(self) -> bool:
        return self.files.is_directory()

    def output(self, stream: str) -> Path:
        return self.path / OUTPUT_FILES[stream]


@dataclass(frozen=True, slots=True)
class ExperimentFolder:
    path: Path

    @property
    def id(self) -> int:
        return int(self.path.name)

    @property
    def files(self) -> UntrustedDir:
        """Its files, written by the host but possibly damaged."""
        return UntrustedDir(self.path)

    @property
    def exists(self) -> bool:
        """Whether it has a header; reading a damaged one raises."""
        return changed_at(self.path / _HEADER_FILE) != 0

    @property
    def made(self) -> int:
        """Modification time of journal or header in nanoseconds since the epoch; 0 if not an experiment."""
        made = changed_at(self.path / _HEADER_FILE)
        return max(made, changed_at(self.journal_file)) if made else 0

    @property
    def journal_file(self) -> Path:
        return self.path / "journal.jsonl"

    @property
    def requests_file(self) -> Path:
        return self.path / "requests.jsonl"

    @property
    def lock_file(self) -> Path:
        return self.path / "controller.lock"

    @property
    def log_file(self) -> Path:
        return self.path / "controller.log"

    @property
    def config_file(self) -> Path:
        return self.path / "config.json"

    @property
    def first_config_file(self) -> Path:
        """The config that the search started with; exists after a `continue` with another config."""
        return self.path / "config.first.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def run(self, trial_id: int, run: int) -> RunFolder:
        return RunFolder(self.path / "runs" / f"{trial_id}-{run}")

    def header(self) -> Header:
        try:
            return self._renamed(read_document(self.path / _HEADER_FILE, self._header))
        except FileNotFoundError:
            raise ConfigError(
                f"there is no experiment {self.path.name}", hint="see `detbuild list`"
            ) from None

    def _header(self, raw: object) -> Header:
        header = from_json(Header, raw)
        if str(header.id) != self.path.name:
            raise ValueError(f"is the header of experiment {header.id}")
        return header

    def _renamed(self, header: Header) -> Header:
        changed = read_attributes(self.path)
        labels = header.labels if changed.labels is None else changed.labels
        return replace(header, name=changed.name or header.name, labels=labels)

    def write(self, header: Header, files: Mapping[str, bytes]) -> None:
        """Write the files of a new experiment, the header last."""
        with file_errors(self.path):
            for name in ("runs", "checkpoints"):
                private_directory(self.path / name)
        last = json.dumps(asdict(header), indent=2).encode() + b"\n"
        write_all_synced(self.path, {**files, _HEADER_FILE: last})

    def record(self, fact: journal.Fact) -> journal.Entry:
        """Append a fact to the journal, synced to disk."""
        from detbuild.store import journal

        entry = journal.Entry(time.time(), fact)
        journal.append(self.journal_file, entry)
        return entry

    def entries(self) -> Iterator[journal.Entry]:
        """Yield the entries of the journal, without holding them all in memory."""
        return self._checked(self._journal())

    def journal_with_damage(self) -> tuple[tuple[journal.Entry, ...], tuple[str, ...]]:
        """Return the entries of the journal, and a message for each damaged place.

        Raises:
            EngineError: The journal is lost or cannot be read.
        """
        file = self._journal()
        return tuple(self._checked(file)), tuple(file.damage)

    def _journal(self) -> journal.JournalFile:
        from detbuild.store.journal import JournalFile

        return JournalFile(self.journal_file)

    def _checked(self, file: journal.JournalFile) -> Iterator[journal.Entry]:
        is_empty = True
        for entry in file.new():
            is_empty = False
            yield entry
        if is_empty and self.files.is_directory("runs") and self.files.scan("runs"):
            raise EngineError(
                f"cannot read {self.journal_file}: it has no entries, but there are runs",
                hint="restore it, or move the experiment's folder aside",
            )

    def journal(self) -> tuple[journal.Entry, ...]:
        return self.journal_with_damage()[0]

    def replace_config(self, config: Mapping[str, object], *, begun: bool) -> None:
        """Replace the config; keep the first one if the search has `begun` with it."""
        if begun and not self.files.exists(self.first_config_file.name):
            first = {self.first_config_file.name: self.files.read(self.config_file.name, LARGEST_DOCUMENT)}
            write_all_synced(self.path, first)
        data = json.dumps(config, indent=2).encode() + b"\n"
        write_all_synced(self.path, {self.config_file.name: data})

    def prepare_run(self, info: RunInfo) -> None:
        """Create the run's folder, owned by the caller as the container runs as the caller."""
        folder = self.run(info.trial_id, info.run).path
        with file_errors(folder):
            private_directory(folder.parent)
            private_directory(folder)
            info.save(folder)

    def inbox(self) -> Inbox:
        """Return the queue of user requests to the experiment's controller."""
        from detbuild.store.journal import Inbox

        return Inbox(self.requests_file)

    def request(self, verb: Verb, *, trial_id: int | None = None) -> None:
        """Add a request, synced to disk."""
        self.inbox().put(verb, trial_id=trial_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointStorage:
    in_run: str
    on_host: Path | None  # None: only inside the container, and lost with it
    mount: Mount | None = None


def checkpoint_storage(config: ExperimentConfig, folder: ExperimentFolder) -> CheckpointStorage:
    """Return the checkpoint directory; before the upload to a bucket it is in the experiment's folder."""
    from detbuild.config.storage import Directory, SharedFs
    from detbuild.engine.protocol import Mount

    storage = config.checkpoint_storage
    if isinstance(storage, SharedFs):
        below = posixpath.relpath(storage.directory, posixpath.normpath(storage.host_path))
        return CheckpointStorage(
            in_run=posixpath.normpath(posixpath.join(_SHARED_DIR, below)),
            on_host=Path(storage.directory),
            mount=Mount(source=storage.host_path, target=_SHARED_DIR, propagation=storage.propagation),
        )
    if isinstance(storage, Directory):
        inside = in_container(storage.container_path)
        return CheckpointStorage(in_run=inside, on_host=_behind(inside, config.bind_mounts))
    own = Mount(source=str(folder.checkpoints), target=_OWN_DIR)
    return CheckpointStorage(in_run=_OWN_DIR, on_host=folder.checkpoints, mount=own)


def in_container(path: str) -> str:
    """Return a path of the config as seen in the container, relative to the work directory."""
    return posixpath.normpath(posixpath.join(WORK_DIR, path))


def _behind(inside: str, mounts: tuple[BindMount, ...]) -> Path | None:
    """Return the host's directory of a path in the container, through its innermost mount."""
    places = sorted(((in_container(m.container_path), m.host_path) for m in mounts), reverse=True)
    for target, source in places:
        if inside == target or inside.startswith(f"{target}/"):
            return Path(source) / posixpath.relpath(inside, target)
    return None


def storage_of(folder: ExperimentFolder) -> CheckpointStorage:
    """Return the checkpoint directory of a submitted experiment."""
    return checkpoint_storage(config_of(folder), folder)


def config_of(folder: ExperimentFolder) -> ExperimentConfig:
    """Return the config as resolved at submission, or when the experiment was last continued.

    Raises:
        EngineError: The file is missing or damaged.
    """
    return _read(folder.config_file)


def config_with(
    config: ExperimentConfig, *, overrides: Sequence[str] = (), file: Path | None = None
) -> ExperimentConfig:
    """Return the config of a submitted experiment with the changes of a file, then of overrides.

    Raises:
        ConfigError: The changes cannot be read, or the result is not a valid config.
    """
    from detbuild.config.parse import changed_config

    return changed_config(
        config.resolved(),
        source="the experiment's config",
        overrides=overrides,
        file=file,
        defaults=_ABSENT,
    )


def search_config_of(folder: ExperimentFolder) -> ExperimentConfig:
    """Return the config that the search started with, even if the experiment was continued with another.

    Raises:
        EngineError: The file is missing or damaged.
    """
    first = folder.first_config_file
    return _read(first if folder.files.exists(first.name) else folder.config_file)


def _read(file: Path) -> ExperimentConfig:
    from detbuild.config.parse import config_from_mapping  # here, since a listing needs no config

    hint = "restore it, or move the experiment's folder aside"
    try:
        raw = read_document(file, as_map, hint=hint)
    except FileNotFoundError as error:
        raise EngineError(f"cannot read {file}: it does not exist", hint=hint) from error
    try:
        return config_from_mapping(raw, source=str(file), defaults=_ABSENT)
    except ConfigError as error:
        raise EngineError(f"cannot read {file}: {error}", hint=hint) from error
