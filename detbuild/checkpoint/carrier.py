"""Has the work with a bucket done by a process of its own: what hangs is ended, and nobody waits for it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from detbuild.checkpoint.bucket import address_of, file_system
from detbuild.checkpoint.jobs import Job, encode_address
from detbuild.errors import ConfigError, EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from detbuild.checkpoint.bucket import Address
    from detbuild.config.experiment import ExperimentConfig

_START: Final = 120.0  # seconds until the first word: a busy host imports slowly
_BLOCK: Final = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class TransferResult:
    """How a job ended: all is empty when it is done."""

    job: Job
    error: str = ""  # may go better another time
    hint: str = ""
    damaged: str = ""  # will not
    foreign: str = ""  # will not either: why the checkpoint is another experiment's


class TransferWorker:
    """One job at a time. The process starts with the first one, and again after it was lost."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._process: subprocess.Popen[bytes] | None = None
        self._job: Job | None = None
        self._deadline = 0.0
        self._read = b""

    @property
    def busy(self) -> bool:
        return self._job is not None

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return self._process.pid if self._process else None

    def ask(self, job: Job) -> None:
        """Begin a job; `answer` tells when it is over."""
        self._job, self._deadline = job, time.monotonic() + _START
        if self._process is None:
            with suppress(OSError):  # no memory or no process left for it: `answer` says so
                self._start()
        if self._process is not None:
            self._send(job.encode())

    def answer(self, *, wait: float = 0.0) -> TransferResult | None:
        """The answer to the job, if there is one within `wait` seconds."""
        job = self._job
        if job is None:
            return None
        if self._process is None:
            return self._lost(job, "no process could be started to carry checkpoints")
        while line := self._line(wait):
            said = json.loads(line)
            if "allow" not in said:
                self._job = None
                names = ("error", "hint", "damaged", "foreign")
                return TransferResult(job=job, **{name: said.get(name, "") for name in names})
            self._deadline = time.monotonic() + float(said["allow"])
        if line is not None:
            return self._lost(job, "the process that carries checkpoints was lost")
        if time.monotonic() < self._deadline:
            return None
        return self._lost(job, f"{self.address.url()} did not answer in time")

    def close(self) -> None:
        """End the process. What it was doing is left where it is, and can be done again."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                assert stream is not None
                with suppress(BrokenPipeError):  # what it was not told any more
                    stream.close()
        self._process, self._job, self._read = None, None, b""

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "detbuild.checkpoint"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",  # not the caller's: `python -m` would import from there
            start_new_session=True,  # Ctrl-C is not for it: it ends with its standard input
        )
        self._send(encode_address(self.address))

    def _send(self, line: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it is gone, and `answer` will say so
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def _line(self, wait: float) -> bytes | None:
        """One line; b"" when no more will come; None when there is none yet."""
        assert self._process is not None
        assert self._process.stdout is not None
        stream = self._process.stdout.fileno()
        while b"\n" not in self._read:
            if not select.select([stream], [], [], wait)[0]:
                return None
            block = os.read(stream, _BLOCK)
            if not block:
                return b""
            self._read += block
        line, _, self._read = self._read.partition(b"\n")
        return line

    def _lost(self, job: Job, error: str) -> TransferResult:
        self.close()
        return TransferResult(job=job, error=error)


@contextmanager
def transfer_worker(address: Address) -> Iterator[TransferWorker]:
    """One for as long as the block runs."""
    made = TransferWorker(address)
    try:
        yield made
    finally:
        made.close()


def run_transfer(address: Address, job: Job) -> None:
    """Do one job and wait for its end.

    Raises:
        ConfigError: The library for this kind of storage is not installed.
        EngineError: It failed.
    """
    with transfer_worker(address) as made:
        made.ask(job)
        answer = None
        while answer is None:
            answer = made.answer(wait=1.0)
    if answer.damaged:
        raise EngineError(answer.damaged)
    if answer.hint:
        raise ConfigError(answer.error, hint=answer.hint)
    if answer.error:
        raise EngineError(f"{address.url()}: {answer.error}", hint=HINT)


def check_writable(config: ExperimentConfig) -> None:
    """See whether checkpoints can be stored where the config wants them; said before anything is built.

    Raises:
        ConfigError: The library for this kind of storage is not installed.
        EngineError: The bucket cannot be written.
    """
    address = address_of(config.checkpoint_storage)
    if address is None:
        return
    file_system(address)  # a missing library is found without starting anything
    try:
        run_transfer(address, Job(do="check"))
    except EngineError as error:
        raise EngineError(f"checkpoint_storage cannot be written: {error}", hint=error.hint) from error


HINT: Final = "see whether bucket, prefix and credentials are right, and whether the service can be reached"
