"""Exit codes of a run, for a host that has no records of it."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """A user's script may end with any other number; 128 + n means that signal n ended the worker."""

    DONE = 0  # completed, preempted, stopped or invalid_hp
    USER_ERROR = 1
    NOT_RETRYABLE = 2
    INFRASTRUCTURE = 74  # sysexits' EX_IOERR: disk full or failing, run folder missing or unreadable
    STARTED_AGAIN = 75  # sysexits' EX_TEMPFAIL: the run was started before; a run starts only once
    INTERRUPTED = 130  # Ctrl-C
