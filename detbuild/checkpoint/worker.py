"""Runs bucket transfers in a worker process, so that a hung transfer can be killed.

Jobs are lines of JSON on the worker's standard input; `run_job` runs them on the worker's side.
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from detbuild import codec
from detbuild.checkpoint import transfer
from detbuild.checkpoint.bucket import bucket_of
from detbuild.config.storage import StorageConfig, storage_from_json
from detbuild.errors import ConfigError, EngineError
from detbuild.pipe import Child

if TYPE_CHECKING:
    from collections.abc import Iterator

    from detbuild.checkpoint.bucket import CheckpointBucket
    from detbuild.config.experiment import ExperimentConfig

_START: Final = 120.0  # timeout of the first message, seconds: a busy host imports slowly
HINT: Final = "check bucket, prefix and credentials, and that the service can be reached"
_TEXTS: Final = ("error", "hint", "damaged", "foreign")
_Operation = Literal["check", "claim", "upload", "fetch", "restore", "prune", "remove", "remove files"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TransferResult:
    """The result of a job; all texts are empty if it succeeded."""

    job: Job
    error: str = ""  # retryable
    hint: str = ""
    damaged: str = ""  # not retryable
    foreign: str = ""  # not retryable: why the checkpoint belongs to another experiment


class TransferWorker:
    """A worker process for one job at a time, started with the first job and restarted if it dies."""

    def __init__(self, storage: StorageConfig) -> None:
        self.storage = storage
        self._child: Child | None = None
        self._job: Job | None = None
        self._deadline = 0.0

    @property
    def busy(self) -> bool:
        return self._job is not None

    @property
    def pid(self) -> int | None:
        """The process id while the worker runs."""
        return self._child.process.pid if self._child else None

    def ask(self, job: Job) -> None:
        """Start a job; `answer` returns its result."""
        self._job, self._deadline = job, time.monotonic() + _START
        if self._child is None:
            with suppress(OSError):  # out of memory or processes: `answer` reports it
                self._child = self._start()
        if self._child is not None:
            self._child.send(codec.to_json(job))

    def answer(self, *, wait: float = 0.0) -> TransferResult | None:
        """Return the result of the job, or None if it has none within `wait` seconds."""
        job = self._job
        if job is None:
            return None
        if self._child is None:
            return self._lost(job, "cannot start the checkpoint transfer process")
        try:
            while (message := self._child.answer(wait)) is not None:
                if "allow" not in message:
                    self._job = None
                    texts = {name: str(message.get(name, "")) for name in _TEXTS}
                    return TransferResult(job=job, **texts)
                self._deadline = time.monotonic() + float(str(message["allow"]))
        except EOFError:
            return self._lost(job, "the checkpoint transfer process ended unexpectedly")
        if time.monotonic() < self._deadline:
            return None
        return self._lost(job, f"{self.storage.bucket_url} did not answer in time")

    def close(self) -> None:
        """Kill the process. An unfinished job can be repeated."""
        if self._child is not None:
            self._child.close()
        self._child, self._job = None, None

    def _start(self) -> Child:
        child = Child(
            [sys.executable, "-m", "detbuild.checkpoint"],
            stderr=subprocess.DEVNULL,
            cwd="/",  # not the caller's: `python -m` would import from there
            start_new_session=True,  # without Ctrl-C: it exits when its standard input closes
        )
        # The bucket with its credentials, kept out of arguments and environment.
        child.send(self.storage.model_dump(mode="json"))
        return child

    def _lost(self, job: Job, error: str) -> TransferResult:
        self.close()
        return TransferResult(job=job, error=error)


@contextmanager
def transfer_worker(storage: StorageConfig) -> Iterator[TransferWorker]:
    """Give a worker that is closed with the block."""
    made = TransferWorker(storage)
    try:
        yield made
    finally:
        made.close()


def run_transfer(storage: StorageConfig, job: Job) -> None:
    """Run one job and wait for its result.

    Raises:
        ConfigError: The library for this kind of storage is not installed.
        EngineError: It failed.
    """
    with transfer_worker(storage) as made:
        made.ask(job)
        answer = None
        while answer is None:
            answer = made.answer(wait=1.0)
    if answer.damaged:
        raise EngineError(answer.damaged)
    if answer.hint:
        raise ConfigError(answer.error, hint=answer.hint)
    if answer.error:
        raise EngineError(f"{storage.bucket_url}: {answer.error}", hint=HINT)


def check_writable(config: ExperimentConfig) -> None:
    """Check that the checkpoint storage of the config is writable, before the image is built.

    Raises:
        ConfigError: The library for this kind of storage is not installed.
        EngineError: The bucket cannot be written.
    """
    storage = bucket_of(config.checkpoint_storage)
    if storage is None:
        return
    try:
        run_transfer(storage, Job(do="check"))
    except EngineError as error:
        raise EngineError(f"checkpoint_storage cannot be written: {error}", hint=error.hint) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    do: _Operation
    uuid: str = ""
    uuids: tuple[str, ...] = ()  # for `remove`
    root: str = ""  # directory of the checkpoints on this host; for `fetch` the new directory itself
    paths: tuple[str, ...] = ()  # files of the checkpoint
    owner: str = ""  # the experiment, as HOME/NUMBER
    ours: tuple[str, ...] = ()  # UUIDs that it owns in the bucket even without a manifest there


def decode_job(line: bytes) -> Job:
    return codec.from_json(Job, codec.parsed(line))


def decode_storage(line: bytes) -> StorageConfig:
    return storage_from_json(codec.parsed(line))


def run_job(job: Job, bucket: CheckpointBucket) -> None:
    """Run a job. It is idempotent: repeating it finishes what a crash interrupted.

    Raises:
        DamagedError: A checkpoint is damaged; retrying does not help.
        ForeignError: The checkpoint belongs to another experiment.
        Exception: Any error of the cloud library.
    """
    root = Path(job.root)
    match job.do:
        case "check":
            bucket.check_writable()
        case "claim":
            transfer.raise_if_foreign(job.uuid, bucket, job.owner)
        case "upload":
            transfer.upload(root / job.uuid, bucket, job.owner)
        case "fetch":
            transfer.fetch(job.uuid, bucket, root)
        case "restore":
            transfer.restore_files(job.uuid, bucket, root)
        case "prune":
            transfer.remove_local(root, job.uuid)
        case "remove":
            _remove(job, root, bucket)
        case "remove files":
            if _is_own(job, job.uuid, bucket):
                transfer.remove_files(job.uuid, bucket, job.paths)
            transfer.remove_local_files(root, job.uuid, job.paths)


def _remove(job: Job, root: Path, bucket: CheckpointBucket) -> None:
    for uuid in job.uuids:
        if _is_own(job, uuid, bucket):
            transfer.remove(uuid, bucket)
        transfer.remove_local(root, uuid)


def _is_own(job: Job, uuid: str, bucket: CheckpointBucket) -> bool:
    return transfer.is_own(uuid, bucket, job.owner, unsigned=uuid in job.ours)
