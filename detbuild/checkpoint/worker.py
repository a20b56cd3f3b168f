"""Runs bucket transfers in a worker process, so that a hung transfer can be killed.

Jobs are lines of JSON on the worker's standard input; `run_job` runs them on the worker's side.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from detbuild.checkpoint import transfer
from detbuild.checkpoint.bucket import bucket_of
from detbuild.config.storage import StorageConfig, storage_from_json
from detbuild.errors import ConfigError, EngineError
from detbuild.pipe import LineReader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from detbuild.checkpoint.bucket import CheckpointBucket
    from detbuild.config.experiment import ExperimentConfig

_START: Final = 120.0  # timeout of the first message, seconds: a busy host imports slowly
HINT: Final = "check bucket, prefix and credentials, and that the service can be reached"
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
        self._process: subprocess.Popen[bytes] | None = None
        self._job: Job | None = None
        self._deadline = 0.0
        self._lines: LineReader | None = None

    @property
    def busy(self) -> bool:
        return self._job is not None

    @property
    def pid(self) -> int | None:
        """The process id while the worker runs."""
        return self._process.pid if self._process else None

    def ask(self, job: Job) -> None:
        """Start a job; `answer` returns its result."""
        self._job, self._deadline = job, time.monotonic() + _START
        if self._process is None:
            with suppress(OSError):  # out of memory or processes: `answer` reports it
                self._start()
        if self._process is not None:
            self._send(job.encode())

    def answer(self, *, wait: float = 0.0) -> TransferResult | None:
        """Return the result of the job, or None if it has none within `wait` seconds."""
        job = self._job
        if job is None:
            return None
        if self._lines is None:
            return self._lost(job, "cannot start the checkpoint transfer process")
        while line := self._lines.line(wait):
            message = json.loads(line)
            if "allow" not in message:
                self._job = None
                names = ("error", "hint", "damaged", "foreign")
                return TransferResult(job=job, **{name: message.get(name, "") for name in names})
            self._deadline = time.monotonic() + float(message["allow"])
        if line is not None:
            return self._lost(job, "the checkpoint transfer process ended unexpectedly")
        if time.monotonic() < self._deadline:
            return None
        return self._lost(job, f"{self.storage.bucket_url} did not answer in time")

    def close(self) -> None:
        """Kill the process. An unfinished job can be repeated."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                assert stream is not None
                with suppress(BrokenPipeError):  # unsent input
                    stream.close()
        self._process, self._job, self._lines = None, None, None

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "detbuild.checkpoint"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",  # not the caller's: `python -m` would import from there
            start_new_session=True,  # without Ctrl-C: it exits when its standard input closes
        )
        assert self._process.stdout is not None
        self._lines = LineReader(self._process.stdout)
        self._send(_encode_storage(self.storage))

    def _send(self, line: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has died: `answer` reports it
            self._process.stdin.write(line)
            self._process.stdin.flush()

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

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Job:
        raw = json.loads(line)
        return cls(**{**raw, **{name: tuple(raw[name]) for name in ("uuids", "paths", "ours")}})


def _encode_storage(storage: StorageConfig) -> bytes:
    """Encode the first line: the bucket with its credentials, kept out of arguments and environment."""
    return json.dumps(storage.model_dump(mode="json")).encode() + b"\n"


def decode_storage(line: bytes) -> StorageConfig:
    return storage_from_json(json.loads(line))


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
