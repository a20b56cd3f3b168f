"""What can go wrong inside a run, each with a cause and a hint.

* InvalidHP                 the hyperparameters cannot work; raised by user code, and not a failure
* HarnessError              a run cannot go on
    * InvalidTrialError     the trial cannot succeed unchanged: NOT_RETRYABLE, never tried again
        * LoadError         the entrypoint cannot be imported, or is not a trial class
        * RemovedError      a part of Determined that is no more; also an ImportError
    * CheckpointError       a checkpoint is missing or damaged
    * StorageError          the disk under checkpoints or records is full or failing: infrastructure
"""

from __future__ import annotations


class InvalidHP(Exception):  # noqa: N818  (Determined's own name)
    """Raise it anywhere in a trial: these hyperparameters are not worth training."""

    def __init__(self, msg: str = "...") -> None:
        super().__init__(msg)


class HarnessError(Exception):
    """What went wrong (`str(error)`) and what the user can do about it (`hint`)."""

    def __init__(self, cause: str, *, hint: str = "") -> None:
        super().__init__(cause)
        self.hint = hint


def explain(error: BaseException) -> None:
    """Add the hint to the text of an error that a script's own traceback will show."""
    if isinstance(error, HarnessError) and error.hint and error.hint not in str(error):
        error.args = (f"{error}\n  hint: {error.hint}",)


class InvalidTrialError(HarnessError):
    """The same code and config will fail again in the same way."""


class LoadError(InvalidTrialError):
    """The entrypoint cannot be imported, or what it names is not a trial class."""


class RemovedError(InvalidTrialError, ImportError):
    """A part of Determined's API that detbuild does not carry."""


class CheckpointError(HarnessError):
    """A checkpoint cannot be read, or is not one of this trial's."""


class StorageError(HarnessError):
    """The disk that holds checkpoints or records is full or failing."""
