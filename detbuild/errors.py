"""All errors that users see, each with a cause, a hint and an exit code.

* DetbuildError
    * ConfigError       2  the experiment config or the command line is wrong
    * ContextError      3  the context directory cannot be packed
    * EngineError       4  Docker Engine or other infrastructure is missing or fails
        * DiskFullError
    * SearchError       4  a search cannot be replayed, or its hook does not answer
    * BuildError        5  the image did not build
    * ExperimentError   6  the experiment ended in error
    * CanceledError     7  the experiment was cancelled or killed
    * LeaseError       75  another controller holds the experiment

Exit code 0 is success, 1 a bug in detbuild, 130 Ctrl-C.
"""

from __future__ import annotations

from typing import ClassVar


class DetbuildError(Exception):
    """An error with its cause, what to do about it (`hint`), and further lines (`details`)."""

    exit_code: ClassVar[int] = 1

    def __init__(self, cause: str, *, hint: str = "", details: tuple[str, ...] = ()) -> None:
        super().__init__("\n".join((cause, *details)))
        self.cause = cause
        self.hint = hint
        self.details = details


class ConfigError(DetbuildError):
    exit_code = 2


class ContextError(DetbuildError):
    exit_code = 3


class EngineError(DetbuildError):
    exit_code = 4


class DiskFullError(EngineError):
    """No free space, here or in the engine's storage; callers wait and retry."""


class SearchError(DetbuildError):
    exit_code = 4


class BuildError(DetbuildError):
    exit_code = 5


class ExperimentError(DetbuildError):
    exit_code = 6


class CanceledError(DetbuildError):
    exit_code = 7


class LeaseError(DetbuildError):
    exit_code = 75
