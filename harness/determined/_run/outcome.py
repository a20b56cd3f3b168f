"""From an exception to the worker's last record: why it ended, where in the user's code, and what to do.

The user's code are the Python files of the context directory, except packages installed in it.
"""

from __future__ import annotations

import inspect
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from determined._contract.errors import (
    CheckpointError,
    HarnessError,
    InvalidHP,
    InvalidTrialError,
    StorageError,
)
from determined._contract.hints import here, hint_of, is_transient
from determined._contract.records import Ended, ExitReason, Stage
from determined._contract.run_info import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

_LONGEST = 4000  # characters of an error's text; the traceback in the output has the full text
_PLACE = re.compile(r"([^\s(]+):(\d+)")
_NOT_RETRYABLE = (InvalidTrialError, CheckpointError, ImportError, SyntaxError)  # the same code fails again
_HARNESS = f"{Path(__file__).parents[1]}{os.sep}"
_RELAYED = "\nOriginal Traceback (most recent call last):\n"
_FRAME = re.compile(r'^  File "(.*)", line (\d+), in (\S+)$', re.MULTILINE)
_NAMED = re.compile(r'File "([^"]+)", line (\d+), in (\w+)')
_TRACED = ("in user code:", "Graph execution error:")
_MOST_FILES = 2000  # of a context that are searched, to stay fast


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


def place_of(error: BaseException, context_dir: Path) -> str:
    """Return the innermost line of the user's code, e.g. `model_def.py:12 in train_batch`, or ""."""
    place = ""
    for trace in _frames(error.__traceback__):
        file = _user_file(trace, context_dir)
        if file:
            name = trace.tb_frame.f_code.co_name
            place = f"{file}:{trace.tb_lineno}" + ("" if name == "<module>" else f" in {name}")
    return place


def place_in(text: str, context_dir: Path) -> str:
    """Return the same for a traceback in the text of an error, as TensorFlow writes it, or ""."""
    found = [(_inside(Path(file), context_dir), line, name) for file, line, name in _NAMED.findall(text)]
    return next((f"{file}:{line} in {name}" for file, line, name in reversed(found) if file), "")


def without_trace(text: str) -> str:
    """Return the text of an error in one line, without the traceback that TensorFlow adds."""
    if not text.startswith(_TRACED):
        return text
    lines = text.splitlines()
    last = max((number for number, line in enumerate(lines) if _NAMED.search(line)), default=-1)
    skipped = 2 if text.startswith(_TRACED[0]) else 1  # also the line of code
    return " ".join(line.strip() for line in lines[last + skipped :] if line.strip()) or text


def defined_at(thing: object) -> str:
    """Return where a user's function, method or class is defined, e.g. `model_def.py:12`, or its name."""
    found = inspect.unwrap(thing) if callable(thing) else type(thing)
    code = getattr(getattr(found, "__func__", found), "__code__", None)
    if code is not None:
        return f"{_short(Path(code.co_filename))}:{code.co_firstlineno}"
    try:
        file, line = inspect.getsourcefile(found), inspect.getsourcelines(found)[1]
    except (OSError, TypeError):
        return getattr(found, "__qualname__", type(found).__name__)
    return f"{_short(Path(file or '?'))}:{line}"


def relayed_from(error: BaseException, context_dir: Path) -> str:
    """Return the error of a data loader's process in one line with its place; "" for other errors.

    torch re-raises it with that process's traceback as its text.
    """
    text = str(error)
    head, _, trace = text.partition(_RELAYED)
    if not trace or not head.startswith("Caught "):
        return ""
    lines = trace.rstrip().splitlines()
    last = next((number for number in reversed(range(len(lines))) if lines[number].startswith("  ")), -1)
    frames = [(Path(file), number, name) for file, number, name in _FRAME.findall(trace)]
    places = [f"{_inside(f, context_dir)}:{n} in {name}" for f, n, name in frames if _inside(f, context_dir)]
    where = head.removeprefix("Caught ").partition(" ")[2].rstrip(".")
    return f"{' '.join(lines[last + 1 :])} ({', '.join([*places[-1:], where])})"


def user_trace(error: BaseException, context_dir: Path) -> TracebackType | None:
    """Return the error's traceback, starting at the user's code.

    Without user code it starts at the first line of a library; an error of the harness keeps all of it.
    """
    if relayed_from(error, context_dir):
        return None  # its text is the traceback
    frames = list(_frames(error.__traceback__))
    inner = (trace for trace in frames if _user_file(trace, context_dir))
    beyond = (trace for trace in frames if not _is_machinery(trace))
    only = None if isinstance(error, SyntaxError) else error.__traceback__  # it contains its place
    return next(inner, next(beyond, only))


def python_files(root: Path) -> Iterator[Path]:
    """Yield the context's Python files by relative path, without hidden folders and virtual environments."""
    seen = 0
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(
            f for f in folders if not f.startswith((".", "__pycache__")) and f != "site-packages"
        )
        for name in sorted(files):
            if name.endswith(".py") and seen < _MOST_FILES:
                seen += 1
                yield (Path(folder) / name).relative_to(root)


def _user_file(trace: TracebackType, context_dir: Path) -> Path | None:
    """Return the frame's file, relative to the context; None for a library, even inside the context."""
    return _inside(Path(trace.tb_frame.f_code.co_filename), context_dir)


def _short(file: Path) -> Path:
    """Return the path relative to the working directory, if inside."""
    return file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file


def _inside(file: Path, context_dir: Path) -> Path | None:
    if file.is_relative_to(context_dir) and "site-packages" not in file.parts:
        return file.relative_to(context_dir)
    return None


def _is_machinery(trace: TracebackType) -> bool:
    """Whether the frame belongs to the harness or to Python's import system."""
    file = trace.tb_frame.f_code.co_filename
    return file.startswith((_HARNESS, "<frozen importlib")) or Path(file).parent.name == "importlib"


def _frames(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next
