"""Errors inside a run, each with a cause and a hint.

* InvalidHP                 the hyperparameters cannot work; raised by user code, not a failure
* HarnessError              a run cannot continue
    * InvalidTrialError     the trial cannot succeed unchanged: NOT_RETRYABLE
        * LoadError         the entrypoint cannot be imported, or is not a trial class
        * RemovedError      an unsupported part of Determined; also an ImportError
    * CheckpointError       a checkpoint is missing or damaged
    * StorageError          the disk under checkpoints or records is full or failing: infrastructure
"""

from __future__ import annotations


class InvalidHP(Exception):  # noqa: N818  (Determined's own name)
    """Raised anywhere in a trial: these hyperparameters are not worth training."""

    def __init__(self, msg: str = "...") -> None:
        super().__init__(msg)


class HarnessError(Exception):
    """An error with its cause (`str(error)`) and what the user can do about it (`hint`)."""

    def __init__(self, cause: str, *, hint: str = "") -> None:
        super().__init__(cause)
        self.hint = hint


def explain(error: BaseException) -> None:
    """Add the hint to the text of an error, for a script's own traceback."""
    if isinstance(error, HarnessError) and error.hint and error.hint not in str(error):
        error.args = (f"{error}\n  hint: {error.hint}",)


class InvalidTrialError(HarnessError):
    """The same code and config will fail again in the same way."""


class LoadError(InvalidTrialError):
    """The entrypoint cannot be imported, or is not a trial class."""


class RemovedError(InvalidTrialError, ImportError):
    """A part of Determined's API that detbuild does not support."""


class CheckpointError(HarnessError):
    """A checkpoint cannot be read, or belongs to another trial."""


class StorageError(HarnessError):
    """The disk that holds checkpoints or records is full or failing."""
