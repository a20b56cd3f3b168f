"""From an exception to the worker's last record: why it ended, where, and what the user can do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from determined._errors import CheckpointError, HarnessError, InvalidHP, InvalidTrialError, StorageError
from determined._exit_codes import ExitCode
from determined._hints import here, hint_of
from determined._records import Ended, ExitReason, Stage
from determined._transient import is_transient
from determined._user_code import place_of, relayed_from

if TYPE_CHECKING:
    from collections.abc import Iterator

_LONGEST = 4000  # characters of an error's text; the traceback in the output has the full text
_PLACE = re.compile(r"([^\s(]+):(\d+)")
_NOT_RETRYABLE = (InvalidTrialError, CheckpointError, ImportError, SyntaxError)  # the same code fails again


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a worker ended. `error` is what user code raised, if anything."""

    ended: Ended
    exit_code: ExitCode
    error: BaseException | None = None


def finished(reason: ExitReason) -> Outcome:
    return Outcome(Ended(reason), ExitCode.DONE)


def failed(error: BaseException, stage: Stage | None, context_dir: Path) -> Outcome:
    """Classify the exception of a run that failed."""
    reason, code = _judge(error)
    ended = Ended(
        reason, stage, _message(error, context_dir), _hint(error), failure_of(error, stage, context_dir)
    )
    return Outcome(ended, code, error)


def _judge(error: BaseException) -> tuple[ExitReason, ExitCode]:
    if isinstance(error, InvalidHP):
        return ExitReason.INVALID_HP, ExitCode.DONE
    if isinstance(error, _NOT_RETRYABLE) and not is_transient(error):
        return ExitReason.NOT_RETRYABLE, ExitCode.NOT_RETRYABLE
    if isinstance(error, StorageError):
        return ExitReason.ERROR, ExitCode.INFRASTRUCTURE
    if isinstance(error, KeyboardInterrupt):
        return ExitReason.ERROR, ExitCode.INTERRUPTED
    return ExitReason.ERROR, ExitCode.USER_ERROR


def failure_of(error: BaseException, stage: Stage | None, context_dir: Path) -> str:
    """Identify an error by its type and line; "" if a retry may succeed."""
    if isinstance(error, KeyboardInterrupt) or is_transient(error):
        return ""
    inner = "".join(f" {file}:{line}" for file, line in _innermost(error, context_dir))
    return f"{stage.value if stage else ''} {type(error).__qualname__}{inner}".strip()


def _innermost(error: BaseException, context_dir: Path) -> Iterator[tuple[str, int]]:
    """Yield the innermost line, and the innermost one of the user's own code."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is not None:
        yield Path(trace.tb_frame.f_code.co_filename).name, trace.tb_lineno
    place = relayed_from(error, context_dir) or place_of(error, context_dir)
    for file, line in _PLACE.findall(place)[-1:]:
        yield file, int(line)


def _message(error: BaseException, context_dir: Path) -> str:
    place = place_of(error, context_dir)
    where = f" ({place})" if place else ""
    if isinstance(error, HarnessError):
        return f"{error}{where}"
    if relayed := relayed_from(error, context_dir):
        return relayed
    if isinstance(error, KeyboardInterrupt):
        return f"interrupted by SIGINT{where}"
    if isinstance(error, SystemExit):
        return f"the trial called sys.exit({'' if error.code is None else repr(error.code)}){where}"
    text = str(error)
    shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} [...]"
    return f"{type(error).__name__}{': ' if text else ''}{shown}{where}"


def _hint(error: BaseException) -> str:
    if isinstance(error, HarnessError):
        return error.hint
    if isinstance(error, SystemExit):
        return "to end the trial, raise an exception or call context.set_stop_requested(True)"
    return hint_of(error, here())
