"""What can go wrong inside a run, each with a cause and a mend.

* InvalidHP             the hyperparameters cannot work; raised by user code, and not a failure
* HarnessError          a run cannot go on
    * InvalidTrialError the trial cannot succeed unchanged: HOPELESS, never tried again
    * CheckpointError   a checkpoint is missing or damaged
"""

from __future__ import annotations


class InvalidHP(Exception):  # noqa: N818  (Determined's own name)
    """Raise it anywhere in a trial: these hyperparameters are not worth training."""


class HarnessError(Exception):
    """What went wrong (`str(error)`) and what the user can do about it (`mend`)."""

    def __init__(self, cause: str, *, mend: str = "") -> None:
        super().__init__(cause)
        self.mend = mend


class InvalidTrialError(HarnessError):
    """The same code and config will fail again in the same way."""


class CheckpointError(HarnessError):
    """A checkpoint cannot be read, or is not one of this trial's."""
