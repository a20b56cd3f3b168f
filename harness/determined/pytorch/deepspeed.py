"""`DeepSpeedTrial` is not carried. Importing this module says what to use instead."""

from __future__ import annotations

from determined._errors import RemovedError

raise RemovedError(
    "determined.pytorch.deepspeed.DeepSpeedTrial is not carried by detbuild",
    mend="write the trial as a determined.pytorch.PyTorchTrial, or keep deepspeed.initialize in a script "
    "with determined.core.init, started by python3 -m determined.launch.torch_distributed",
)
