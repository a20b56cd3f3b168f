"""Ends a run whose entrypoint is an unsupported launcher: not retried, with a hint."""

from __future__ import annotations

import os

from determined._contract.records import Ended, ExitReason
from determined._contract.run_info import ExitCode, RunInfo
from determined.launch._launcher import Failure
from determined.launch.torch_distributed import conclude


def fail_unsupported(cause: str, *, hint: str) -> int:
    """Record the failure of the run; return the exit code."""
    ended = Ended(ExitReason.NOT_RETRYABLE, message=cause, hint=hint)
    return conclude(Failure(ended, ExitCode.NOT_RETRYABLE), RunInfo.from_environ(os.environ))
