"""The base class of the trials of all frameworks."""

from __future__ import annotations

from typing import ClassVar


class Trial:
    """The base class of `PyTorchTrial` and `TFKerasTrial`.

    `_runner` names the function that trains such a trial, as `module:function`. It is imported only when
    a trial of that kind runs, and called as `function(trial_class, run) -> ExitReason`.
    """

    _runner: ClassVar[str] = ""
    _one_process: ClassVar[bool] = False  # one process uses all devices of a run
