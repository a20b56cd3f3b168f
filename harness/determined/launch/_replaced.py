"""Ends a run whose entrypoint is an unsupported launcher: not retried, with a hint."""

from __future__ import annotations

import os

from determined._exit_codes import ExitCode
from determined._records import Ended, ExitReason
from determined._run_info import RunInfo
from determined.launch._failure import Failure
from determined.launch.torch_distributed import conclude


def fail_unsupported(cause: str, *, hint: str) -> int:
    """Record the failure of the run; return the exit code."""
    ended = Ended(ExitReason.NOT_RETRYABLE, message=cause, hint=hint)
    return conclude(Failure(ended, ExitCode.NOT_RETRYABLE), RunInfo.from_environ(os.environ))
