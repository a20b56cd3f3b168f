"""What the exit code of a run says, for the host that has nothing else left to go by."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """A script of the user's may end with any other number; 128 + n means that signal n ended the worker."""

    DONE = 0  # completed, preempted, stopped or invalid_hp
    USER_ERROR = 1
    NOT_RETRYABLE = 2
    INFRASTRUCTURE = 74  # sysexits' EX_IOERR: disk full or failing, run folder missing or unreadable
    STARTED_AGAIN = 75  # sysexits' EX_TEMPFAIL: the run had begun before, and a run starts once
    INTERRUPTED = 130  # Ctrl-C
