"""From an exception to the worker's last word: why it ended, where, and what the user can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from determined._errors import CheckpointError, HarnessError, InvalidHP, InvalidTrialError, StorageError
from determined._exit_codes import ExitCode
from determined._records import Ended, ExitReason, Stage
from determined._user_code import place_of, relayed_from

if TYPE_CHECKING:
    from pathlib import Path

_LONGEST = 4000  # characters of an error's text; the traceback in the output has all of it
_SHM_MEND = "raise resources.shm_size in the experiment config, or use fewer data loader workers"
_GPU_MEMORY_MEND = "lower the batch size, or use smaller layers: the GPU's memory is full"
_HOST_MEMORY_MEND = "lower the batch size or the number of data loader workers: the host's memory is full"
_KNOWN_TEXTS = (
    ("out of shared memory", _SHM_MEND),
    ("insufficient shared memory", _SHM_MEND),
    ("unable to write to file </torch_", _SHM_MEND),
    ("unable to open shared memory object", _SHM_MEND),
    ("CUDA out of memory", _GPU_MEMORY_MEND),
    ("CUDA error: out of memory", _GPU_MEMORY_MEND),
    ("HIP out of memory", _GPU_MEMORY_MEND),
    ("CUBLAS_STATUS_ALLOC_FAILED", _GPU_MEMORY_MEND),
    ("is killed by signal: Killed", _HOST_MEMORY_MEND),  # a data loader worker
    ("Cannot allocate memory", _HOST_MEMORY_MEND),
    ("OOM when allocating tensor", _GPU_MEMORY_MEND),
    ("DefaultCPUAllocator: can't allocate memory", _HOST_MEMORY_MEND),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a worker ended. `error` is what user code raised, if it did."""

    ended: Ended
    exit_code: ExitCode
    error: BaseException | None = None


def finished(reason: ExitReason) -> Outcome:
    return Outcome(Ended(reason), ExitCode.DONE)


def failed(error: BaseException, stage: Stage | None, context_dir: Path) -> Outcome:
    """Judge what came out of a run that did not end by itself."""
    reason, code = _judge(error)
    ended = Ended(reason, stage, _message(error, context_dir), _mend(error))
    return Outcome(ended, code, error)


def _judge(error: BaseException) -> tuple[ExitReason, ExitCode]:
    if isinstance(error, InvalidHP):
        return ExitReason.INVALID_HP, ExitCode.DONE
    if isinstance(error, (InvalidTrialError, CheckpointError)):
        return ExitReason.HOPELESS, ExitCode.HOPELESS
    if isinstance(error, StorageError):
        return ExitReason.ERROR, ExitCode.INFRASTRUCTURE
    if isinstance(error, KeyboardInterrupt):
        return ExitReason.ERROR, ExitCode.INTERRUPTED
    return ExitReason.ERROR, ExitCode.USER_ERROR


def _message(error: BaseException, context_dir: Path) -> str:
    place = place_of(error, context_dir)
    where = f" ({place})" if place else ""
    if isinstance(error, HarnessError):
        return f"{error}{where}"
    if relayed := relayed_from(error, context_dir):
        return relayed
    if isinstance(error, KeyboardInterrupt):
        return f"interrupted by SIGINT{where}"
    if isinstance(error, SystemExit):
        return f"the trial called sys.exit({'' if error.code is None else repr(error.code)}){where}"
    text = str(error)
    shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} [...]"
    return f"{type(error).__name__}{': ' if text else ''}{shown}{where}"


def _mend(error: BaseException) -> str:
    if isinstance(error, HarnessError):
        return error.mend
    if isinstance(error, MemoryError):
        return _HOST_MEMORY_MEND
    if isinstance(error, SystemExit):
        return "let the harness end the trial: raise an exception, or call context.set_stop_requested(True)"
    text = str(error)
    return next((mend for known, mend in _KNOWN_TEXTS if known in text), "")
