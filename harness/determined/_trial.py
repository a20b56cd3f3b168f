"""What every trial class derives from, whatever its framework."""

from __future__ import annotations

from typing import ClassVar


class Trial:
    """The base of `PyTorchTrial` and its like.

    `_runner` names the function that trains such a trial, as `module:function`. It is imported only when
    a trial of that kind runs, and called as `function(trial_class, run) -> ExitReason`.
    """

    _runner: ClassVar[str] = ""
    _one_process: ClassVar[bool] = False  # one process drives all devices of a run, not each process its own
